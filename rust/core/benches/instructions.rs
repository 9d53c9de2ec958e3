//! Runs one hot function a given number of times, for callgrind to count: `instructions NAME TIMES`, or `--list`.

#![expect(clippy::print_stdout, reason = "a program answers by printing")]

mod hot;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [name, times] if name != "--bench" => {
            let times: u64 = times.parse().expect("TIMES is a whole number");
            let mut cases = hot::cases().into_iter();
            let (_, mut work) = cases.find(|(known, _)| *known == name).expect("--list prints the names");
            for _ in 0..times {
                work();
            }
        }
        _ => hot::cases().iter().for_each(|(name, _)| println!("{name}")),
    }
}
