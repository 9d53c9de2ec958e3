//! The law of three zones: backlog and priority in, zone, delay and shedding out. Integers throughout.

use crate::laws::law::{Advice, Law, saturated};
use crate::sample::Sample;
use crate::vocabulary::{Priority, Reason};
use crate::zone::{Window, Zone};

const PERMILLE: u128 = 1_000;

/// A factor as numerator and denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Numerator.
    pub num: u64,
    /// Denominator, above 0.
    pub den: u64,
}

impl Scale {
    fn of(self, base: u128) -> u128 {
        base * u128::from(self.num) / u128::from(self.den)
    }
}

/// One queue's windows and curve, validated by the configuration: 0 ≤ `yellow_min` ≤ `yellow_max` ≤ `red_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LawSettings {
    /// Windows by priority.
    pub windows: [Window; 3],
    /// Delay just above the green limit, in nanoseconds.
    pub yellow_min_ns: u64,
    /// Delay at the yellow limit.
    pub yellow_max_ns: u64,
    /// Delay at the red limit and beyond.
    pub red_max_ns: u64,
    /// Factors on the base delay by priority.
    pub scales: [Scale; 3],
    /// LOW is shed beyond so many thousandths of the red zone.
    pub shed_permille: u64,
    /// Whether the factors hold in the yellow zone too.
    pub scale_yellow: bool,
    /// Thousandths of its limit of memory that the queue's server uses when LOW is shed, and when MEDIUM is too.
    pub memory_permille: Option<(u64, u64)>,
}

impl LawSettings {
    /// Returns the largest backlog at which LOW is not shed, as far as it lies below its `red_max`.
    fn shed_limit(&self) -> i64 {
        let Window { yellow_max, red_max, .. } = self.windows[Priority::Low.index()];
        let depth = u128::from(self.shed_permille) * u128::from(red_max.abs_diff(yellow_max)) / PERMILLE;
        yellow_max.saturating_add(i64::try_from(depth).unwrap_or(i64::MAX))
    }
}

/// Piecewise linear delay: none in green, a light slope in yellow, a steep one in red, capped at `red_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreeZoneLaw {
    settings: LawSettings,
}

impl ThreeZoneLaw {
    /// Makes the law of `settings`.
    pub fn new(settings: LawSettings) -> Self {
        Self { settings }
    }

    /// Returns a backlog from which on the advice is the same, whatever it is.
    pub fn steady_from(&self) -> i64 {
        self.settings.windows.iter().map(|window| window.red_max).max().unwrap_or(i64::MAX)
    }
}

impl LawSettings {
    /// Tells whether the memory of the queue's server keeps a job out, whatever the backlog.
    fn lacks_memory(&self, sample: &Sample, priority: Priority) -> bool {
        let (Some(used), Some((low, medium))) = (sample.memory_permille, self.memory_permille) else { return false };
        match priority {
            Priority::Low => used >= low,
            Priority::Medium => used >= medium,
            Priority::High => false,
        }
    }
}

impl Law for ThreeZoneLaw {
    type State = ();

    fn advise(&self, sample: &Sample, priority: Priority, (): &()) -> Advice {
        let (law, backlog) = (&self.settings, sample.backlog);
        let window = &law.windows[priority.index()];
        let scale = law.scales[priority.index()];
        let yellow_max_ns = u128::from(law.yellow_max_ns);
        if law.lacks_memory(sample, priority) {
            let delay_ns = saturated(scale.of(u128::from(law.red_max_ns)));
            return Advice { zone: Zone::Red, delay_ns, shed: true, reason: Reason::Memory, room: None };
        }
        match window.zone_of(backlog) {
            Zone::Green => Advice {
                zone: Zone::Green,
                delay_ns: 0,
                shed: false,
                reason: Reason::BacklogGreen,
                room: Some(backlog.abs_diff(window.green_max)),
            },
            Zone::Yellow => {
                let slope = yellow_max_ns - u128::from(law.yellow_min_ns);
                let depth = u128::from(backlog.abs_diff(window.green_max));
                let span = u128::from(window.yellow_max.abs_diff(window.green_max));
                let base = u128::from(law.yellow_min_ns) + slope * depth / span;
                let delay = if law.scale_yellow { scale.of(base) } else { base };
                Advice {
                    zone: Zone::Yellow,
                    delay_ns: saturated(delay),
                    shed: false,
                    reason: Reason::BacklogYellow,
                    room: Some(backlog.abs_diff(window.yellow_max)),
                }
            }
            Zone::Red => {
                let depth = u128::from(backlog.min(window.red_max).abs_diff(window.yellow_max));
                let span = u128::from(window.red_max.abs_diff(window.yellow_max));
                let base = yellow_max_ns + (u128::from(law.red_max_ns) - yellow_max_ns) * depth / span;
                let shed = priority == Priority::Low && depth * PERMILLE > u128::from(law.shed_permille) * span;
                let reason = if shed { Reason::BacklogRedShed } else { Reason::BacklogRed };
                let limit = if priority == Priority::Low { law.shed_limit() } else { window.red_max };
                let room = (backlog < window.red_max && !shed).then(|| backlog.abs_diff(limit));
                Advice { zone: Zone::Red, delay_ns: saturated(scale.of(base)), shed, reason, room }
            }
        }
    }

    fn foresee(&self, sample: &Sample, priority: Priority, state: &()) -> Advice {
        self.advise(sample, priority, state)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Advice, Law, LawSettings, Sample, Scale, ThreeZoneLaw};
    use crate::vocabulary::{Priority, Reason};
    use crate::zone::{Window, Zone};

    const MAX_BACKLOG: i64 = (1 << 53) - 1;
    const HOUR_NS: u64 = 3_600_000_000_000;

    /// The formula as it is printed, on wide signed integers.
    fn oracle(law: &LawSettings, priority: Priority, backlog: i64) -> (i128, bool) {
        let window = law.windows[priority.index()];
        let (b, g, y, r) = (
            i128::from(backlog),
            i128::from(window.green_max),
            i128::from(window.yellow_max),
            i128::from(window.red_max),
        );
        let (ymin, ymax, rmax) =
            (i128::from(law.yellow_min_ns), i128::from(law.yellow_max_ns), i128::from(law.red_max_ns));
        let base = if b <= g {
            0
        } else if b <= y {
            ymin + ((ymax - ymin) * (b - g)).div_euclid(y - g)
        } else {
            ymax + ((rmax - ymax) * (b.min(r) - y)).div_euclid(r - y)
        };
        let scale = law.scales[priority.index()];
        let scaled = (base * i128::from(scale.num)).div_euclid(i128::from(scale.den));
        let delay = if g < b && b <= y && !law.scale_yellow { base } else { scaled };
        let shed =
            priority == Priority::Low && b > y && (b.min(r) - y) * 1_000 > i128::from(law.shed_permille) * (r - y);
        (delay, shed)
    }

    fn sample(backlog: i64) -> Sample {
        Sample { number: 1, backlog, oldest_age_ns: None, memory_permille: None, as_of_ns: 0 }
    }

    prop_compose! {
        fn windows()(limits in prop::collection::btree_set(0..=MAX_BACKLOG, 3)) -> Window {
            let limits: Vec<i64> = limits.into_iter().collect();
            Window { green_max: limits[0], yellow_max: limits[1], red_max: limits[2] }
        }
    }

    prop_compose! {
        // What the configuration allows: up to 1000, with denominators up to a million.
        fn scales()(den in 1..=1_000_000u64)(num in 1..=1_000 * den, den in Just(den)) -> Scale {
            Scale { num, den }
        }
    }

    prop_compose! {
        fn laws()(
            windows in prop::array::uniform3(windows()),
            mut delays in prop::array::uniform3(0..=HOUR_NS),
            scales in prop::array::uniform3(scales()),
            shed_permille in 0..=1_000u64,
            scale_yellow: bool,
        ) -> LawSettings {
            delays.sort_unstable();
            LawSettings {
                windows,
                yellow_min_ns: delays[0],
                yellow_max_ns: delays[1],
                red_max_ns: delays[2],
                scales,
                shed_permille,
                scale_yellow,
                memory_permille: None,
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_formula(law in laws(), anywhere in 0..=MAX_BACKLOG, near in -2..=2i64) {
            let judge = ThreeZoneLaw::new(law.clone());
            for priority in Priority::ALL {
                let window = law.windows[priority.index()];
                let limits = [window.green_max, window.yellow_max, window.red_max];
                for backlog in limits.map(|limit| limit + near).into_iter().chain([anywhere, i64::MAX]) {
                    let advice = judge.advise(&sample(backlog), priority, &());
                    let (delay, shed) = oracle(&law, priority, backlog);
                    prop_assert_eq!((i128::from(advice.delay_ns), advice.shed), (delay, shed));
                    prop_assert_eq!(advice.zone, window.zone_of(backlog));
                    let kind = |backlog| {
                        let (_, shed) = oracle(&law, priority, backlog);
                        (window.zone_of(backlog), shed, backlog >= window.red_max)
                    };
                    match advice.room.map(|room| backlog.saturating_add_unsigned(room)) {
                        Some(last) => {
                            prop_assert_eq!((kind(last).0, kind(last).1), (kind(backlog).0, kind(backlog).1));
                            prop_assert_ne!(kind(last + 1), kind(backlog));
                        }
                        None => prop_assert!(shed || backlog >= window.red_max),
                    }
                    let steady = judge.steady_from();
                    let beyond = judge.advise(&sample(backlog.max(steady)), priority, &());
                    prop_assert_eq!(beyond, judge.advise(&sample(steady), priority, &()));
                }
            }
        }
    }

    #[test]
    fn the_defaults_shed_low_above_four_fifths_of_red() {
        let window = Window { green_max: 100, yellow_max: 500, red_max: 1_000 };
        let law = ThreeZoneLaw::new(LawSettings {
            windows: [window; 3],
            yellow_min_ns: 10_000_000,
            yellow_max_ns: 500_000_000,
            red_max_ns: 5_000_000_000,
            scales: [(3, 2), (1, 1), (1, 2)].map(|(num, den)| Scale { num, den }),
            shed_permille: 800,
            scale_yellow: true,
            memory_permille: None,
        });
        let last =
            Advice { zone: Zone::Red, delay_ns: 6_150_000_000, shed: false, reason: Reason::BacklogRed, room: Some(0) };
        assert_eq!(law.advise(&sample(900), Priority::Low, &()), last);
        assert!(law.advise(&sample(901), Priority::Low, &()).shed);
        let capped =
            Advice { zone: Zone::Red, delay_ns: 2_500_000_000, shed: false, reason: Reason::BacklogRed, room: None };
        assert_eq!(law.advise(&sample(i64::MAX), Priority::High, &()), capped);
    }
}
