//! What commands print, for people or as JSON, and the units that they read.

use anyhow::{Context, bail};
use serde_json::Value;
use std::io::{IsTerminal, Read, Write};

/// Reads a number of bytes with a unit of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "B" => 1u64,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        unit => return Err(format!("`{unit}` is not a unit, use KiB, MiB, GiB or TiB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{digits}` is not a whole number"))?;
    number.checked_mul(unit).ok_or_else(|| "that number is too large".to_owned())
}

/// Reads a duration with a unit.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "s" => 1u64,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        _ => return Err("write a number and s, m, h, d or w, like 30d".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{digits}` is not a whole number"))?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(|| "that is not a valid duration".to_owned())
}

/// Formats a number of bytes for people.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => {
            let tenths = bytes.saturating_mul(10) / size;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// Prints rows for people, or as JSON.
pub(crate) fn table(json: bool, rows: &Value, columns: &[&str]) -> anyhow::Result<()> {
    if json {
        return print(&serde_json::to_string_pretty(rows)?);
    }
    let cell = |row: &Value, column: &str| match (row.get(column), column) {
        (Some(Value::Number(_)), "limit") if row[column] == 0 => "unlimited".to_owned(),
        (Some(Value::Number(number)), _) => number.as_u64().map(human).unwrap_or_default(),
        (Some(Value::String(text)), _) => text.clone(),
        (Some(Value::Bool(true)), _) => "yes".to_owned(),
        _ => "-".to_owned(),
    };
    let mut lines = vec![columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>()];
    for row in rows.as_array().into_iter().flatten() {
        lines.push(columns.iter().map(|column| cell(row, column)).collect());
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| lines.iter().filter_map(|line| line.get(at)).map(|text| text.chars().count()).max().unwrap_or(0))
        .collect();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(text, width)| format!("{text:width$}"));
        print(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Reads a password from standard input.
pub(crate) fn password() -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        bail!("pass the password on standard input, for example: printf %s \"$PASSWORD\" | stackroom …");
    }
    let mut text = String::new();
    std::io::stdin().take(4096).read_to_string(&mut text).context("can't read the password")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Prints a line.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("can't write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_read_with_their_units() {
        assert_eq!(bytes("10GiB"), Ok(10 << 30));
        assert_eq!(bytes("0"), Ok(0));
        assert!(bytes("10GB").is_err() && bytes("x").is_err() && bytes("99999999TiB").is_err());
        assert_eq!(seconds("30d"), Ok(30 * 86_400));
        assert!(seconds("30").is_err() && seconds("0d").is_err());
        assert_eq!(human(1536), "1.5 KiB");
    }
}
