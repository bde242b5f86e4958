//! Sizes in bytes: what people type, what the kernel prints, what messages show.
//!
//! Sizes are binary everywhere: `GB` in input means GiB. Never a float inside a decision.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An amount of memory in bytes. Arithmetic saturates: a sensor that reports nonsense must not wrap around
/// into a kill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// No memory at all.
    pub const ZERO: Bytes = Bytes(0);
    /// More than any machine has; used for "no limit".
    pub const MAX: Bytes = Bytes(u64::MAX);

    /// `n` kibibytes, the unit of `/proc/meminfo`.
    pub const fn kib(n: u64) -> Bytes {
        Bytes(n.saturating_mul(1 << 10))
    }
    /// `n` mebibytes.
    pub const fn mib(n: u64) -> Bytes {
        Bytes(n.saturating_mul(1 << 20))
    }
    /// `n` gibibytes.
    pub const fn gib(n: u64) -> Bytes {
        Bytes(n.saturating_mul(1 << 30))
    }
    /// Gibibytes as a float, for messages only.
    pub fn as_gib(self) -> f64 {
        self.0 as f64 / (1u64 << 30) as f64
    }
    /// `self * percent / 100` without overflow.
    pub const fn percent(self, percent: u64) -> Bytes {
        Bytes((self.0 as u128 * percent as u128 / 100) as u64)
    }
    /// The sum, or `Bytes::MAX`.
    pub const fn plus(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }
    /// The difference, or zero.
    pub const fn minus(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Bytes {
    /// `7.9 GiB`, `200 MiB`, `512 B`: at most one decimal, none where it would be zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (name, shift) in UNITS {
            if self.0 >> shift > 0 {
                let tenths = (self.0 as u128 * 10 + (1u128 << (shift - 1))) >> shift;
                return match tenths % 10 {
                    0 => write!(f, "{} {name}", tenths / 10),
                    d => write!(f, "{}.{d} {name}", tenths / 10),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// Why a size could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Nothing before the unit, or not a number.
    #[error("`{0}` is not a size (try `8GiB`, `512MiB` or `1.5G`)")]
    NotASize(String),
    /// A number below zero.
    #[error("`{0}` is negative; a size is a positive amount such as `8GiB`")]
    Negative(String),
    /// A unit that does not exist.
    #[error(
        "`{unit}` in `{text}` is not a unit (known: B, K, M, G, T, with or without `iB` or `B`; all binary)"
    )]
    Unit {
        /// The whole input.
        text: String,
        /// The part that was not understood.
        unit: String,
    },
    /// A number that does not fit in 64 bits.
    #[error("`{0}` is larger than any machine")]
    TooLarge(String),
}

impl FromStr for Bytes {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Bytes, SizeError> {
        let trimmed = text.trim();
        if trimmed.starts_with('-') {
            return Err(SizeError::Negative(text.to_owned()));
        }
        let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let value: f64 = number.parse().map_err(|_| SizeError::NotASize(text.to_owned()))?;
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(SizeError::Unit { text: text.to_owned(), unit: unit.trim().to_owned() }),
        };
        let bytes = value * (1u64 << shift) as f64;
        if bytes >= (1u64 << 60) as f64 {
            return Err(SizeError::TooLarge(text.to_owned()));
        }
        Ok(Bytes(bytes as u64))
    }
}

/// A size, or a share of whatever there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Amount {
    /// So many bytes.
    Bytes(Bytes),
    /// So many percent of all memory, of the machine or of a device.
    Percent(u8),
}

impl Amount {
    /// In bytes, of `total`.
    pub const fn of(self, total: Bytes) -> Bytes {
        match self {
            Amount::Bytes(bytes) => bytes,
            Amount::Percent(percent) => total.percent(percent as u64),
        }
    }
}

impl fmt::Display for Amount {
    /// As it would be typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Bytes(bytes) => bytes.fmt(f),
            Amount::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Amount, String> {
        let Some(number) = text.trim().strip_suffix('%') else {
            return text.parse().map(Amount::Bytes).map_err(|error: SizeError| error.to_string());
        };
        match number.trim().parse::<u8>() {
            Ok(percent @ 1..=100) => Ok(Amount::Percent(percent)),
            _ => Err(format!("`{text}` is not a share of memory (try `60%`; 1 to 100)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_whatever_the_spelling() {
        for text in ["8GiB", "8G", "8GB", "8g", " 8 GiB ", "8192MiB", "8589934592"] {
            assert_eq!(text.parse::<Bytes>(), Ok(Bytes::gib(8)), "{text}");
        }
        assert_eq!("1.5G".parse::<Bytes>(), Ok(Bytes::mib(1536)));
    }

    #[test]
    fn nonsense_is_refused_with_the_part_that_is_wrong() {
        assert!(matches!("-1G".parse::<Bytes>(), Err(SizeError::Negative(_))));
        assert!(matches!("".parse::<Bytes>(), Err(SizeError::NotASize(_))));
        assert!(matches!("GiB".parse::<Bytes>(), Err(SizeError::NotASize(_))));
        assert!(matches!("1.2.3G".parse::<Bytes>(), Err(SizeError::NotASize(_))));
        assert!(matches!("99999999999T".parse::<Bytes>(), Err(SizeError::TooLarge(_))));
        let unit = "8 bananas".parse::<Bytes>().unwrap_err();
        assert!(unit.to_string().contains("`bananas`"), "{unit}");
    }

    #[test]
    fn sizes_are_shown_with_at_most_one_decimal() {
        assert_eq!(Bytes::gib(8).to_string(), "8 GiB");
        assert_eq!(Bytes::mib(8090).to_string(), "7.9 GiB");
        assert_eq!(Bytes::mib(200).to_string(), "200 MiB");
        assert_eq!(Bytes(512).to_string(), "512 B");
        assert_eq!(Bytes::ZERO.to_string(), "0 B");
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Bytes(1).minus(Bytes(2)), Bytes::ZERO);
        assert_eq!(Bytes::MAX.plus(Bytes(1)), Bytes::MAX);
        assert_eq!(Bytes::MAX.percent(50), Bytes(u64::MAX / 2));
    }

    #[test]
    fn amounts_are_sizes_or_shares() {
        assert_eq!("8GiB".parse(), Ok(Amount::Bytes(Bytes::gib(8))));
        assert_eq!("50%".parse::<Amount>().unwrap().of(Bytes::gib(32)), Bytes::gib(16));
        for wrong in ["0%", "101%", "-5%", "%", "many", "1e3%"] {
            assert!(wrong.parse::<Amount>().is_err(), "{wrong}");
        }
    }
}
