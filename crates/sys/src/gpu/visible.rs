//! Which devices a process may use, by the variables that CUDA and HIP read.
//!
//! Pure: reads no environment itself.

use super::{Device, Vendor};

/// The variables as they are set for a process; `None`: not set, which is not the same as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// `CUDA_VISIBLE_DEVICES`.
    pub cuda: Option<String>,
    /// `HIP_VISIBLE_DEVICES`.
    pub hip: Option<String>,
    /// `ROCR_VISIBLE_DEVICES`.
    pub rocr: Option<String>,
}

impl Variables {
    /// From an environment.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Variables {
        Variables {
            cuda: env("CUDA_VISIBLE_DEVICES"),
            hip: env("HIP_VISIBLE_DEVICES"),
            rocr: env("ROCR_VISIBLE_DEVICES"),
        }
    }
}

/// The places in `devices` of those that may be used, in the order in which the process numbers them, NVIDIA's first.
///
/// Numbers are taken in the order of the PCI bus. CUDA counts so only with `CUDA_DEVICE_ORDER=PCI_BUS_ID`, or where all
/// cards are alike: elsewhere name them by UUID. A divided card is there only by its instances. Intel's have no such
/// variable.
pub fn visible(devices: &[Device], variables: &Variables) -> Vec<usize> {
    let of = |vendor| -> Vec<usize> {
        let is = |(_, device): &(usize, &Device)| device.vendor == vendor && !device.divided;
        devices.iter().enumerate().filter(is).map(|(place, _)| place).collect()
    };
    let mut all = select(devices, of(Vendor::Nvidia), variables.cuda.as_deref());
    // ROCm's runtime chooses first, HIP among what is left. It takes CUDA's variable where it has none of its own.
    let amd = select(devices, of(Vendor::Amd), variables.rocr.as_deref());
    all.extend(select(devices, amd, variables.hip.as_deref().or(variables.cuda.as_deref())));
    all.extend(of(Vendor::Intel));
    all
}

/// CUDA's own rules: what is not understood hides itself and all that follows; what is named twice, everything.
fn select(devices: &[Device], among: Vec<usize>, variable: Option<&str>) -> Vec<usize> {
    let Some(variable) = variable else { return among };
    // A number means a card; of one that is divided, its first instance.
    let numbered: Vec<usize> = {
        let first = |place: &usize| match devices[*place].card {
            None => true,
            card => among.iter().find(|other| devices[**other].card == card) == Some(place),
        };
        among.iter().copied().filter(first).collect()
    };
    let by_name = ["GPU-", "MIG-"].into_iter().find(|kind| variable.trim_start().starts_with(kind));
    let mut chosen = Vec::new();
    for word in variable.split(',').map(str::trim) {
        let place = match by_name {
            Some(kind) if word.starts_with(kind) => named(devices, &among, word),
            Some(_) => None,
            None => number(word).and_then(|number| numbered.get(number).copied()),
        };
        match place {
            Some(place) if chosen.contains(&place) => return Vec::new(),
            Some(place) => chosen.push(place),
            None => break,
        }
    }
    chosen
}

/// As `strtoul` reads it: the digits at the beginning. Negative or none: no number.
fn number(word: &str) -> Option<usize> {
    let word = word.strip_prefix('+').unwrap_or(word);
    let end = word.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(word.len());
    word[..end].parse().ok()
}

/// The one device whose name begins so. The name of a divided card alone stands for its first instance.
fn named(devices: &[Device], among: &[usize], word: &str) -> Option<usize> {
    let begins = |uuid: &str| uuid.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    let mut fitting = among.iter().copied().filter(|place| begins(&devices[*place].uuid));
    match (fitting.next(), fitting.next()) {
        (Some(place), None) => return Some(place),
        (Some(_), Some(_)) => return None,
        (None, _) => {}
    }
    let mut cards = devices.iter().enumerate().filter(|(_, device)| device.divided && begins(&device.uuid));
    match (cards.next(), cards.next()) {
        (Some((card, _)), None) => among.iter().copied().find(|place| devices[*place].card == Some(card)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use oomguard_core::{Reading, Why};

    use super::*;

    fn device(vendor: Vendor, uuid: &str) -> Device {
        Device {
            vendor,
            index: 0,
            card: None,
            divided: false,
            uuid: uuid.to_owned(),
            name: String::new(),
            bus: String::new(),
            memory: Reading::Unknown(Why::NotYet),
            holders: Err(Why::NotYet),
        }
    }

    fn cuda(variable: &str) -> Vec<usize> {
        let devices = ["GPU-aa11", "GPU-aa22", "GPU-bb33"].map(|uuid| device(Vendor::Nvidia, uuid));
        visible(&devices, &Variables { cuda: Some(variable.to_owned()), ..Variables::default() })
    }

    #[test]
    fn numbers_choose_and_order() {
        assert_eq!(cuda("0"), [0]);
        assert_eq!(cuda("2,0"), [2, 0]);
        assert_eq!(cuda(" 1 , 2 "), [1, 2]);
        assert_eq!(cuda("1gpu2,2ampere"), [1, 2], "read as strtoul reads");
    }

    #[test]
    fn an_entry_that_is_wrong_hides_all_after_it() {
        assert_eq!(cuda("0,-1,2"), [0]);
        assert_eq!(cuda("0,7,2"), [0]);
        assert_eq!(cuda("0,,2"), [0]);
        assert_eq!(cuda("GPU-bb33,GPU-nothing,GPU-aa11"), [2]);
        assert_eq!(cuda("GPU-bb33,1"), [2], "names and numbers do not mix");
        assert_eq!(cuda("1,GPU-bb33"), [1]);
    }

    #[test]
    fn nothing_is_visible_where_nothing_is_named() {
        for none in ["", " ", "-1", "NoDevFiles", "none", ","] {
            assert!(cuda(none).is_empty(), "{none:?}");
        }
    }

    #[test]
    fn a_device_named_twice_hides_everything() {
        assert!(cuda("0,0").is_empty());
        assert!(cuda("GPU-aa11,GPU-bb,GPU-bb33").is_empty());
    }

    #[test]
    fn a_name_may_be_shortened_as_long_as_it_is_one_devices() {
        assert_eq!(cuda("GPU-b"), [2]);
        assert!(cuda("GPU-aa").is_empty());
        assert_eq!(cuda("GPU-AA22"), [1]);
    }

    #[test]
    fn a_divided_card_is_its_instances() {
        let mut devices = vec![device(Vendor::Nvidia, "GPU-aa"), device(Vendor::Nvidia, "MIG-1")];
        devices.extend([device(Vendor::Nvidia, "MIG-2"), device(Vendor::Nvidia, "GPU-bb")]);
        devices[0].divided = true;
        devices[1].card = Some(0);
        devices[2].card = Some(0);
        let cuda = |text: &str| {
            visible(&devices, &Variables { cuda: Some(text.to_owned()), ..Variables::default() })
        };
        assert_eq!(visible(&devices, &Variables::default()), [1, 2, 3]);
        assert_eq!(cuda("MIG-2"), [2]);
        assert_eq!(cuda("GPU-aa"), [1]);
        assert_eq!(cuda("0,1"), [1, 3]);
    }

    #[test]
    fn hip_chooses_among_what_rocm_has_left() {
        let devices = ["GPU-1", "GPU-2", "GPU-3"].map(|uuid| device(Vendor::Amd, uuid));
        let set = |cuda: Option<&str>, hip: Option<&str>, rocr: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            visible(&devices, &Variables { cuda: own(cuda), hip: own(hip), rocr: own(rocr) })
        };
        assert_eq!(set(None, None, None), [0, 1, 2]);
        assert_eq!(set(None, Some("1"), Some("1,2")), [2]);
        assert_eq!(set(None, None, Some("GPU-3")), [2]);
        assert_eq!(set(Some("0"), None, None), [0]);
        assert_eq!(set(Some("0"), Some("2"), None), [2]);
        assert!(set(None, Some(""), None).is_empty());
    }
}
