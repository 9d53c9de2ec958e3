//! Holds the core against the golden vectors that the Python tests read too.

mod breaker;
mod budget;
mod decision;
mod law;
mod lease;

use std::path::Path;

use serde_json::Value;

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/vectors/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("the vectors are JSON")
}

/// Returns the items of a list that is not empty.
fn list(value: &Value) -> &[Value] {
    value.as_array().filter(|items| !items.is_empty()).unwrap_or_else(|| panic!("{value} is no list, or an empty one"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}

fn boolean(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| panic!("{value} is no boolean"))
}

fn integer(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no natural number"))
}

fn index(value: &Value) -> usize {
    usize::try_from(integer(value)).expect("indices are small")
}

fn signed(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no integer"))
}

fn triple<T>(value: &Value, read: impl Fn(&Value) -> T) -> [T; 3] {
    [0, 1, 2].map(|index| read(&value[index]))
}
