//! Which part of its window a backlog lies in.

/// Part of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Nothing to hold back.
    Green,
    /// A light slope of delay.
    Yellow,
    /// A steep one, up to shedding.
    Red,
}

impl Zone {
    /// All of them, with their public names.
    pub const ALL: [(Self, &str); 3] = [(Self::Green, "green"), (Self::Yellow, "yellow"), (Self::Red, "red")];

    /// Its place in that order.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// One priority's limits in waiting jobs; the configuration keeps 0 ≤ green < yellow < red.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Last backlog of the green zone.
    pub green_max: i64,
    /// Last backlog of the yellow zone.
    pub yellow_max: i64,
    /// Backlog from which the delay grows no more.
    pub red_max: i64,
}

impl Window {
    /// Returns the zone of `backlog`.
    pub fn zone_of(&self, backlog: i64) -> Zone {
        if backlog <= self.green_max {
            Zone::Green
        } else if backlog <= self.yellow_max {
            Zone::Yellow
        } else {
            Zone::Red
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Window, Zone};

    #[test]
    fn a_limit_belongs_to_the_zone_that_it_ends() {
        let window = Window { green_max: 10, yellow_max: 20, red_max: 30 };
        let zones = [0, 10, 11, 20, 21, 30, 31, i64::MAX].map(|backlog| window.zone_of(backlog));
        let expected =
            [Zone::Green, Zone::Green, Zone::Yellow, Zone::Yellow, Zone::Red, Zone::Red, Zone::Red, Zone::Red];
        assert_eq!(zones, expected);
    }
}
