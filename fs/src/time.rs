//! Points in time as files carry them: signed seconds since 1970 and nanoseconds within that second.
//!
//! *Invariants*
//! 1. `nsec` is below 1,000,000,000 and always counts forward, before 1970 too: half a second before 1970 is
//!    second -1 with 500,000,000 ns.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds in a second; the bound of [`Time::nsec`].
pub const NSEC_PER_SEC: u32 = 1_000_000_000;

/// One point in time, exact to the nanosecond, over the whole range of 64-bit seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub sec: i64,
    /// Nanoseconds after `sec`, below [`NSEC_PER_SEC`].
    pub nsec: u32,
}

impl Time {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self { sec: 0, nsec: 0 };

    /// A time of whole seconds and nanoseconds; nanoseconds of a second or more are `None`.
    pub fn new(sec: i64, nsec: u32) -> Option<Self> {
        (nsec < NSEC_PER_SEC).then_some(Self { sec, nsec })
    }

    /// The system's clock. Called once an operation, at the edge; everything below takes the value as an argument.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Nanoseconds since 1970, clamped to what 64 bits hold (years 1677 to 2262).
    pub fn as_nanos(&self) -> i64 {
        let nanos = i128::from(self.sec) * i128::from(NSEC_PER_SEC) + i128::from(self.nsec);
        nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// `2026-11-21T20-17-26Z`: UTC to the second, without colons, which Windows forbids in names. Years are clamped to what
    /// the calendar holds.
    pub fn to_name(&self) -> String {
        let second = self.sec.clamp(jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
        let stamp = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        stamp.strftime("%Y-%m-%dT%H-%M-%SZ").to_string()
    }

    /// The time that many nanoseconds after 1970.
    pub fn from_nanos(nanos: i64) -> Self {
        let second = i64::from(NSEC_PER_SEC);
        Self { sec: nanos.div_euclid(second), nsec: nanos.rem_euclid(second) as u32 }
    }

    /// The system's form of this time; `None` if the system cannot hold it.
    pub fn to_system(&self) -> Option<SystemTime> {
        let whole = Duration::from_secs(self.sec.unsigned_abs());
        let base = if self.sec < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        base?.checked_add(Duration::from_nanos(u64::from(self.nsec)))
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self { sec: seconds(after), nsec: after.subsec_nanos() },
            Err(error) => {
                let before = error.duration();
                match before.subsec_nanos() {
                    0 => Self { sec: -seconds(before), nsec: 0 },
                    nsec => Self { sec: -seconds(before) - 1, nsec: NSEC_PER_SEC - nsec },
                }
            }
        }
    }
}

fn seconds(duration: Duration) -> i64 {
    // One below the maximum, so that the step to the second before cannot overflow.
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).min(i64::MAX - 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_before_1970_keep_their_fraction() {
        let system = UNIX_EPOCH - Duration::from_millis(500);
        let time = Time::from(system);
        assert_eq!(time, Time { sec: -1, nsec: 500_000_000 });
        assert_eq!(time.to_system().unwrap(), system);
        assert_eq!(Time::from(UNIX_EPOCH - Duration::from_secs(7)), Time { sec: -7, nsec: 0 });
    }

    #[test]
    fn system_times_round_trip_on_both_sides_of_1970() {
        for (sec, nsec) in [(0, 0), (1, 999_999_999), (-1, 1), (-9_000_000_000, 5), (4_102_444_800, 7)] {
            let time = Time::new(sec, nsec).unwrap();
            assert_eq!(Time::from(time.to_system().unwrap()), time, "{sec}.{nsec}");
            assert_eq!(Time::from_nanos(time.as_nanos()).nsec, nsec);
        }
        assert_eq!(Time::new(0, NSEC_PER_SEC), None);
    }

    #[test]
    fn order_is_the_order_in_time() {
        let times = [(-2, 999_999_999), (-1, 0), (-1, 1), (0, 0), (0, 1), (1, 0)];
        let times: Vec<Time> = times.iter().map(|&(sec, nsec)| Time { sec, nsec }).collect();
        assert!(times.is_sorted());
        assert!(times.iter().map(Time::as_nanos).is_sorted());
    }

    #[test]
    fn nanoseconds_out_of_range_are_clamped() {
        assert_eq!(Time { sec: i64::MAX, nsec: 0 }.as_nanos(), i64::MAX);
        assert_eq!(Time { sec: i64::MIN, nsec: 0 }.as_nanos(), i64::MIN);
        assert_eq!(Time::from_nanos(-1), Time { sec: -1, nsec: 999_999_999 });
    }
}
