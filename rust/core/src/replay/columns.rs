//! Rows of a recording as they lie in a block: column by column, as differences; see the Python `_recording.columns`.

use std::fmt;

use super::row::Row;

/// How many numbers a row has.
pub const COLUMNS: usize = 17;
/// Stands for what is not known.
pub const UNKNOWN: i64 = i64::MIN;

/// Why bytes are no rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// There are fewer numbers than rows need.
    EndsTooEarly,
    /// There are more.
    HasMore,
    /// The last number is not whole.
    EndsWithinNumber,
    /// A number has more than 64 bits.
    TooLarge,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::EndsTooEarly => "it ends too early",
            Self::HasMore => "it has more than its rows",
            Self::EndsWithinNumber => "it ends within a number",
            Self::TooLarge => "a number is too large",
        })
    }
}

/// Reads a block of so many rows, into memory that served for the block before.
///
/// # Errors
/// The bytes are damaged, or of other columns.
pub fn read(content: &[u8], count: usize, rows: &mut Vec<Row>) -> Result<(), Damage> {
    rows.clear();
    rows.resize(count.min(content.len() + 1), Row([UNKNOWN; COLUMNS])); // more have too few bytes
    let mut left = content;
    for column in 0..COLUMNS {
        // Most columns change little, or are not known: then each byte is a number.
        match left.split_at_checked(count) {
            Some((all, rest)) if any_bit(all) < 128 => {
                if any_bit(all) > 0 {
                    small(all, column, rows);
                }
                left = rest;
            }
            _ => any(&mut left, column, rows)?,
        }
    }
    if next(&mut left)?.is_some() { Err(Damage::HasMore) } else { Ok(()) }
}

fn any_bit(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |bits, byte| bits | byte)
}

/// Reads a column whose numbers have a byte each.
fn small(bytes: &[u8], column: usize, rows: &mut [Row]) {
    let mut last = 0;
    for (byte, row) in bytes.iter().zip(rows) {
        if *byte > 0 {
            let zigzag = i64::from(byte - 1);
            last += (zigzag >> 1) ^ -(zigzag & 1);
            row.0[column] = last;
        }
    }
}

/// Reads a column of numbers of any length.
fn any(left: &mut &[u8], column: usize, rows: &mut [Row]) -> Result<(), Damage> {
    let mut last = 0;
    for row in rows {
        let number = match **left {
            [low @ 128..=255, high @ 0..=127, ref rest @ ..] => {
                *left = rest;
                u128::from(low & 127) | (u128::from(high) << 7)
            }
            _ => next(left)?.ok_or(Damage::EndsTooEarly)?,
        };
        if number > 0 {
            last = moved(last, number - 1)?;
            row.0[column] = last;
        }
    }
    Ok(())
}

/// Returns a number that differs from the last by a step in zigzag.
#[inline]
fn moved(last: i64, zigzag: u128) -> Result<i64, Damage> {
    if let Ok(near) = u32::try_from(zigzag) {
        let step = i64::from(near >> 1) ^ -i64::from(near & 1);
        return last.checked_add(step).filter(|it| *it != UNKNOWN).ok_or(Damage::TooLarge);
    }
    let half = i128::try_from(zigzag >> 1).map_err(|_| Damage::TooLarge)?;
    let step = if zigzag & 1 == 1 { -half - 1 } else { half };
    let moved = i64::try_from(i128::from(last) + step).ok().filter(|it| *it != UNKNOWN);
    moved.ok_or(Damage::TooLarge)
}

/// Takes the next number off the bytes; `None` at their end.
#[inline]
fn next(left: &mut &[u8]) -> Result<Option<u128>, Damage> {
    match **left {
        [byte @ 0..=127, ref rest @ ..] => {
            *left = rest;
            Ok(Some(u128::from(byte)))
        }
        [] => Ok(None),
        _ => long(left).map(Some),
    }
}

fn long(left: &mut &[u8]) -> Result<u128, Damage> {
    let (mut number, mut shift, mut is_large) = (0, 0, false);
    while let [byte, ref rest @ ..] = **left {
        *left = rest;
        let bits = u128::from(byte & 127);
        if shift < 119 {
            number |= bits << shift;
        } else {
            is_large |= bits != 0;
        }
        shift += 7;
        if byte < 128 {
            return if is_large { Err(Damage::TooLarge) } else { Ok(number) };
        }
    }
    Err(Damage::EndsWithinNumber)
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, Damage, Row, UNKNOWN, read};

    #[test]
    fn differences_become_numbers() {
        // 5, unknown, 4, 204: plus 1, in zigzag, in bytes of seven bits.
        let mut content = vec![11, 0, 2, 0x91, 0x03];
        content.extend([0; 4 * (COLUMNS - 1)]);
        let mut rows = vec![Row([3; COLUMNS])];
        assert_eq!(read(&content, 4, &mut rows), Ok(()));
        let first: Vec<i64> = rows.iter().map(|row| row.0[0]).collect();
        assert_eq!(first, [5, UNKNOWN, 4, 204]);
        assert_eq!(rows[3].0[1], UNKNOWN);
    }

    #[test]
    fn damage_is_found() {
        let read = |content: &[u8]| read(content, 1, &mut Vec::new()).err();
        assert_eq!(read(&[1; COLUMNS]), None);
        assert_eq!(read(&[]), Some(Damage::EndsTooEarly));
        assert_eq!(read(&[1; COLUMNS - 1]), Some(Damage::EndsTooEarly));
        assert_eq!(read(&[1; COLUMNS + 1]), Some(Damage::HasMore));
        assert_eq!(read(&[129]), Some(Damage::EndsWithinNumber));
        let mut large = vec![0xff; 11];
        large.push(1);
        assert_eq!(read(&large), Some(Damage::TooLarge));
    }
}
