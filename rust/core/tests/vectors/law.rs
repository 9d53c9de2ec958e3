//! Holds the law against its golden answers.

use backpressure_core::laws::law::Law;
use backpressure_core::laws::three_zone::{LawSettings, Scale, ThreeZoneLaw};
use backpressure_core::sample::Sample;
use backpressure_core::vocabulary::Priority;
use backpressure_core::zone::Window;
use serde_json::Value;

use crate::{boolean, index, integer, list, read, signed, triple};

pub fn settings(law: &Value) -> LawSettings {
    LawSettings {
        windows: triple(&law["windows"], |window| {
            let [green_max, yellow_max, red_max] = triple(window, signed);
            Window { green_max, yellow_max, red_max }
        }),
        yellow_min_ns: integer(&law["yellow_min_ns"]),
        yellow_max_ns: integer(&law["yellow_max_ns"]),
        red_max_ns: integer(&law["red_max_ns"]),
        scales: triple(&law["scales"], |scale| Scale { num: integer(&scale[0]), den: integer(&scale[1]) }),
        shed_permille: integer(&law["shed_permille"]),
        scale_yellow: boolean(&law["scale_yellow"]),
        memory_permille: None,
    }
}

#[test]
fn the_law_gives_the_golden_answers() {
    for entry in list(&read("law")) {
        let law = ThreeZoneLaw::new(settings(&entry["law"]));
        for case in list(&entry["cases"]) {
            let sample = Sample {
                number: 0,
                backlog: signed(&case[1]),
                oldest_age_ns: None,
                memory_permille: None,
                as_of_ns: 0,
            };
            let advice = law.advise(&sample, Priority::ALL[index(&case[0])], &());
            let answer = (advice.zone.index() as u64, advice.delay_ns, advice.shed);
            let expected = (integer(&case[2]), integer(&case[3]), boolean(&case[4]));
            assert_eq!(answer, expected, "{case} of {}", entry["law"]);
        }
    }
}
