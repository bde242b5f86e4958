//! Children of the zygote that have been made before it is known for which file, and wait in a cgroup of their own.
//!
//! To enter a cgroup takes 10 to 20 ms, most of which the kernel waits for all its CPUs; while another file runs that
//! costs nobody anything. Makes and removes the cgroups they wait in.

use oomguard_sys::cgroup::{Leaf, Parent};

use super::zygote::Zygote;

/// One that waits.
pub struct Standby {
    /// Its number.
    pub number: u64,
    /// Its cgroup's name.
    pub name: String,
    /// Its cgroup.
    pub leaf: Leaf,
}

impl Standby {
    /// Has one made. `None`: it cannot be, and then the file that it would have been for is started without.
    pub fn order(zygote: &Zygote, parent: &Parent, number: u64, name: String) -> Option<Standby> {
        let leaf = parent.leaf(&name).ok()?;
        let standby = Standby { number, name, leaf };
        match zygote.stand_by(number, &standby.leaf) {
            Ok(()) => Some(standby),
            Err(_) => {
                standby.dismiss();
                None
            }
        }
    }

    /// Nothing is left for it to do.
    pub fn dismiss(self) {
        let _ = self.leaf.kill();
        let _ = self.leaf.remove();
    }
}
