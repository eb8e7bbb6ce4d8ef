//! Values as they are shown and given: times, durations, payloads.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_statemachine::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::exit::Failure;

/// RFC 3339 in UTC with milliseconds.
pub fn time(at: Timestamp) -> String {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.3}")
}

/// A duration for people: `850ms`, `8.8s`, `2m 5s`, `3h 20m`, `4d 1h`.
pub fn span(ms: u64) -> String {
    let (s, m, h, d) = (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 if ms % 1_000 < 100 => format!("{s}s"),
        1_000..60_000 => format!("{s}.{}s", ms % 1_000 / 100),
        60_000..3_600_000 => two(m, "m", s % 60, "s"),
        3_600_000..86_400_000 => two(h, "h", m % 60, "m"),
        _ => two(d, "d", h % 24, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        return format!("{large}{large_unit}");
    }
    format!("{large}{large_unit} {small}{small_unit}")
}

/// Opaque bytes as scripts see them: the JSON value that they are, else a string, else nothing here
/// and base64 beside it.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Payload {
    /// The bytes are JSON; shown digit by digit as they are.
    Json(Box<RawValue>),
    /// The bytes are text.
    Text(String),
}

/// Splits opaque bytes into the two JSON fields that show them: the value and the base64.
pub fn payload(bytes: &[u8]) -> (Option<Payload>, Option<String>) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return (None, Some(STANDARD.encode(bytes)));
    };
    let json = serde_json::from_str::<&RawValue>(text)
        .ok()
        .and_then(|raw| RawValue::from_string(on_one_line(raw.get())).ok());
    match json {
        Some(json) => (Some(Payload::Json(json)), None),
        None => (Some(Payload::Text(text.to_owned())), None),
    }
}

/// Takes out the white space between the tokens of valid JSON: one value is one line.
fn on_one_line(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |found: &char| {
        if in_string {
            in_string = escaped || *found != '"';
            escaped = !escaped && *found == '\\';
            return true;
        }
        in_string = *found == '"';
        !matches!(found, ' ' | '\t' | '\n' | '\r')
    };
    json.chars().filter(keep).collect()
}

const PREVIEW_CHARS: usize = 60;

/// The beginning of opaque bytes, for a column of a table.
pub fn preview(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return format!("({} bytes)", bytes.len());
    };
    match text.char_indices().nth(PREVIEW_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The bytes that an argument means: itself, `@FILE`, or `-` for stdin.
pub fn bytes(field: &str, text: &str) -> Result<Vec<u8>, Failure> {
    let read = match (text, text.strip_prefix('@')) {
        ("-", _) => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map(|_| bytes)
        }
        (_, Some(path)) => std::fs::read(path),
        _ => return Ok(text.as_bytes().to_vec()),
    };
    read.map_err(|error| Failure::error("io", format!("--{field} {text}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_are_utc() {
        assert_eq!(time(Timestamp(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            time(Timestamp(1_795_204_588_070)),
            "2026-11-20T19:56:28.070Z"
        );
        assert_eq!(time(Timestamp(u64::MAX)), "9999-12-30T22:00:00.999Z");
    }

    #[test]
    fn spans_read_as_people_say_them() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_050, "1s"),
            (8_849, "8.8s"),
            (60_000, "1m"),
            (125_999, "2m 5s"),
            (12_000_000, "3h 20m"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    fn shown(bytes: &[u8]) -> String {
        let (value, base64) = payload(bytes);
        serde_json::to_string(&(value, base64)).expect("both are JSON")
    }

    #[test]
    fn a_payload_is_shown_as_the_json_that_it_is() {
        let digits = b"{ \"n\": 123456789012345678901234567890,\n \"a b\": \"x \\\" y\" }";
        assert_eq!(
            shown(digits),
            r#"[{"n":123456789012345678901234567890,"a b":"x \" y"},null]"#
        );
        assert_eq!(shown(b" 7 "), "[7,null]");
    }

    #[test]
    fn a_payload_that_is_no_json_is_text_or_base64() {
        assert_eq!(shown(b"hello"), r#"["hello",null]"#);
        assert_eq!(shown(b""), r#"["",null]"#);
        assert_eq!(shown(&[0xff, 0x00]), r#"[null,"/wA="]"#);
    }

    #[test]
    fn a_preview_is_short_and_cut_between_characters() {
        assert_eq!(preview(b"{}"), "{}");
        assert_eq!(
            preview("ä".repeat(61).as_bytes()),
            format!("{}…", "ä".repeat(60))
        );
        assert_eq!(preview(&[0xff, 0xff]), "(2 bytes)");
    }

    #[test]
    fn an_argument_is_text_or_a_file() {
        assert_eq!(bytes("payload", "{}").expect("text"), b"{}");
        let failure = bytes("payload", "@/no/such/file").expect_err("no file");
        assert!(
            failure.message().starts_with("--payload @/no/such/file: "),
            "{failure:?}"
        );
    }
}
