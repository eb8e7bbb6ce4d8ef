//! Frames of HTTP/2, made by hand: no client would send these.

/// Preface and empty settings.
pub const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame with its right length.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame_of_length(payload.len(), kind, flags, stream, payload)
}

/// A frame that claims a length.
pub fn frame_of_length(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (length as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A number as header compression writes it, in the low bits of its first byte.
fn number(prefix_bits: u32, mut value: usize, bytes: &mut Vec<u8>) {
    let most = (1 << prefix_bits) - 1;
    if value < most {
        bytes.push(value as u8);
        return;
    }
    bytes.push(most as u8);
    value -= most;
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// A header that nobody keeps.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        number(7, text.len(), &mut bytes);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The headers of a call.
pub fn call(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let ours = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "n"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let all = ours.iter().chain(more);
    all.flat_map(|(name, value)| header(name, value)).collect()
}

/// The frame that begins a call on a stream, which stays open.
pub fn begin(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &call(path, &[]))
}

#[test]
fn numbers_are_those_of_the_standard() {
    // RFC 7541, C.1.2.
    let mut bytes = Vec::new();
    number(5, 1_337, &mut bytes);
    assert_eq!(bytes, [31, 154, 10]);
    assert_eq!(header("a", "bc"), [0, 1, b'a', 2, b'b', b'c']);
    assert_eq!(
        frame(PING, 1, 3, &[7; 2]),
        [0, 0, 2, 6, 1, 0, 0, 0, 3, 7, 7]
    );
}
