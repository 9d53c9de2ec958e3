//! Holds the law against the golden vectors that the Python tests read too.

use std::path::Path;

use backpressure_core::Priority;
use backpressure_core::curve::{Law, LawSettings, Scale, ThreeZoneLaw};
use backpressure_core::zone::Window;
use serde_json::Value;

fn integer(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no natural number"))
}

fn signed(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no integer"))
}

fn triple<T>(value: &Value, read: impl Fn(&Value) -> T) -> [T; 3] {
    [0, 1, 2].map(|index| read(&value[index]))
}

fn settings(law: &Value) -> LawSettings {
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
        scale_yellow: law["scale_yellow"].as_bool().expect("scale_yellow is a boolean"),
    }
}

#[test]
fn the_law_gives_the_golden_answers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/law.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entries: Value = serde_json::from_str(&text).expect("the vectors are JSON");
    let mut cases = 0;
    for entry in entries.as_array().expect("the vectors are a list") {
        let law = ThreeZoneLaw::new(settings(&entry["law"]));
        for case in entry["cases"].as_array().expect("cases are a list") {
            let priority = Priority::ALL[usize::try_from(integer(&case[0])).expect("priorities are small")];
            let advice = law.advise(priority, signed(&case[1]));
            let answer = (advice.zone.index() as u64, advice.delay_ns, advice.shed);
            let expected = (integer(&case[2]), integer(&case[3]), case[4].as_bool().expect("shed is a boolean"));
            assert_eq!(answer, expected, "{case} of {}", entry["law"]);
            cases += 1;
        }
    }
    assert!(cases > 0, "{} holds no cases", path.display());
}
