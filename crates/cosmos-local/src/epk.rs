//! Effective partition keys: where the hash of a partition key value puts it among all values.
//!
//! They are upper-case hex texts between [`FIRST`] and [`END`], compared as text. Clients compute them too, so they have
//! to be the service's, bit by bit.

use serde_json::Value;

/// The smallest effective partition key, which a range may begin with.
pub(crate) const FIRST: &str = "";

/// What is greater than every effective partition key.
pub(crate) const END: &str = "FF";

/// Version 1 looks at no more of a string, in UTF-16 code units; and writes no more of it, in bytes.
const V1_STRING: usize = 100;

/// How values are hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Hashing {
    /// One path, 32-bit hash.
    #[default]
    V1,
    /// One path, 128-bit hash.
    V2,
    /// Several paths, each with a 128-bit hash of its own, so that a prefix of values is a range.
    Multi,
}

impl Hashing {
    /// The effective partition key of canonical components: scalars, and `{}` for undefined.
    pub(crate) fn of(self, components: &[Value]) -> String {
        match self {
            Self::V1 => components.first().map(v1).unwrap_or_default(),
            Self::V2 | Self::Multi => components.iter().map(v2).collect(),
        }
    }
}

/// How many hashes there are.
const V1_HASHES: f64 = 4_294_967_296.0;

/// The first 32 bits of a wide hash, of which the top two are never set, tell well enough where it is.
const V2_PLACES: f64 = 1_073_741_824.0;

impl Hashing {
    /// A border at this fraction of all hashes.
    pub(crate) fn at(self, fraction: f64) -> String {
        match self {
            Self::V1 => {
                let mut bytes = Vec::new();
                push_number(&mut bytes, (fraction * V1_HASHES).floor());
                hex(&bytes)
            }
            Self::V2 | Self::Multi => {
                format!("{:08X}{:024}", (fraction * V2_PLACES).floor() as u32, 0)
            }
        }
    }

    /// The fraction of all hashes at which a border is.
    pub(crate) fn place(self, border: &str) -> f64 {
        match self {
            Self::V1 => read_number(border).map_or(0.0, |hash| hash / V1_HASHES),
            Self::V2 | Self::Multi => {
                let digits = border.get(..8).unwrap_or_default();
                u32::from_str_radix(digits, 16).map_or(0.0, |place| f64::from(place) / V2_PLACES)
            }
        }
    }
}

/// Type markers, in hash input and in version 1's text.
mod marker {
    pub(super) const UNDEFINED: u8 = 0x00;
    pub(super) const NULL: u8 = 0x01;
    pub(super) const FALSE: u8 = 0x02;
    pub(super) const TRUE: u8 = 0x03;
    pub(super) const NUMBER: u8 = 0x05;
    pub(super) const STRING: u8 = 0x08;
}

/// What is hashed of a component; `end` closes a string.
fn hash_input(component: &Value, end: u8) -> Vec<u8> {
    match component {
        Value::Null => vec![marker::NULL],
        Value::Bool(false) => vec![marker::FALSE],
        Value::Bool(true) => vec![marker::TRUE],
        Value::Number(number) => {
            let double = number.as_f64().unwrap_or_default();
            [&[marker::NUMBER][..], &double.to_le_bytes()].concat()
        }
        Value::String(text) => [&[marker::STRING][..], text.as_bytes(), &[end]].concat(),
        Value::Object(_) | Value::Array(_) => vec![marker::UNDEFINED],
    }
}

fn v2(component: &Value) -> String {
    let input = hash_input(component, 0xff);
    let hash = murmur3::murmur3_x64_128(&mut input.as_slice(), 0)
        .expect("reading from memory does not fail");
    let mut bytes = hash.to_be_bytes();
    bytes[0] &= 0x3f;
    hex(&bytes)
}

fn v1(component: &Value) -> String {
    let component = match component {
        Value::String(text) => Value::from(cut(text)),
        other => other.clone(),
    };
    let input = hash_input(&component, 0x00);
    let hash =
        murmur3::murmur3_32(&mut input.as_slice(), 0).expect("reading from memory does not fail");
    let mut bytes = Vec::new();
    push_number(&mut bytes, f64::from(hash));
    match &component {
        Value::Number(number) => push_number(&mut bytes, number.as_f64().unwrap_or_default()),
        Value::String(text) => push_string(&mut bytes, text.as_bytes()),
        other => bytes.extend(hash_input(other, 0x00)),
    }
    hex(&bytes)
}

fn cut(text: &str) -> &str {
    let mut units = 0;
    let end = text.char_indices().find_map(|(at, char)| {
        units += char.len_utf16();
        (units > V1_STRING).then_some(at)
    });
    &text[..end.unwrap_or(text.len())]
}

/// A number so that the order of bytes is the order of numbers: 8 bits, then 7 at a time with a bit that says "more".
fn push_number(bytes: &mut Vec<u8>, number: f64) {
    const SIGN: u64 = 1 << 63;
    let bits = number.to_bits();
    let ordered = if bits & SIGN == 0 {
        bits ^ SIGN
    } else {
        bits.wrapping_neg()
    };
    bytes.extend([marker::NUMBER, ordered.to_be_bytes()[0]]);
    let mut rest = ordered << 8;
    loop {
        let group = rest.to_be_bytes()[0] & 0xfe;
        rest <<= 7;
        if rest == 0 {
            bytes.push(group);
            return;
        }
        bytes.push(group | 1);
    }
}

/// A positive number that [`push_number`] has written.
fn read_number(text: &str) -> Option<f64> {
    let byte = |at: usize| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok();
    if byte(0)? != marker::NUMBER {
        return None;
    }
    let mut ordered = u64::from(byte(1)?) << 56;
    for group in 0.. {
        let bits = byte(2 + group)?;
        let value = u64::from(bits & 0xfe) << 56;
        ordered |= value >> (8 + 7 * group);
        if bits & 1 == 0 {
            break;
        }
    }
    Some(f64::from_bits(ordered ^ (1 << 63)))
}

/// A string so that it sorts before its extensions; a long one has no end mark.
fn push_string(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.push(marker::STRING);
    bytes.extend(
        text.iter()
            .take(V1_STRING + 1)
            .map(|byte| byte.saturating_add(1)),
    );
    if text.len() <= V1_STRING {
        bytes.push(0);
    }
}

/// Every request with a partition key comes through here, so it is spelled out: formatting each byte takes ten times as long.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 0xf)]);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `EffectivePartitionKeyConformance.json` of `Azure/azure-sdk-for-rust`, `PartitionKeyHashBaselineTest.*.xml` of
    /// `Azure/azure-cosmos-dotnet-v3`, and values that an independent implementation computed.
    #[test]
    fn one_component_hashes_as_the_service_does() {
        let a = |count: usize| Value::from("a".repeat(count));
        let a100 = format!("05C1EB5921F70608{}00", "62".repeat(100));
        let vectors = [
            (
                json!({}),
                "05C1D529E345DC00",
                "11622DAA78F835834610ABE56EFF5CB5",
            ),
            (
                json!(null),
                "05C1ED45D7475601",
                "378867E4430E67857ACE5C908374FE16",
            ),
            (
                json!(false),
                "05C1DB857D857C02",
                "2FE1BE91E90A3439635E0E9E37361EF2",
            ),
            (
                json!(true),
                "05C1D7C5A903D803",
                "0E711127C5B5A8E4726AC6DD306A3E59",
            ),
            (
                json!(""),
                "05C1CF33970FF80800",
                "32E9366E637A71B4E710384B2F4970A0",
            ),
            (
                json!("partitionKey"),
                "05C1E1B3D9CD2608716273756A756A706F4C667A00",
                "013AEFCF77FA271571CF665A58C933F1",
            ),
            (
                json!("asdf"),
                "05C1E7035DAF84086274656700",
                "208BF1D598F5B63AD5520F04FE58C5E8",
            ),
            (
                json!("customer42"),
                "05C1E1AB7B430C0864767475706E6673353300",
                "19819C94CE42A1654CCC8110539D9589",
            ),
            (
                json!("café 東京 🚀"),
                "05C1DF0501C73008646267C4AA21E79EB2E5BBAD21F1A09B8100",
                "389ED563F219577470F42691A5234A68",
            ),
            (
                json!("quote\"backslash\\slash/newline\n"),
                "05C1E739E3AD88087276707566236362646C746D6274695D746D627469306F66786D6A6F660B00",
                "0A75245A5A77FB1C92F7AB9E0FD5E73F",
            ),
            (a(100), a100.as_str(), "0DBD7D229437BB665DE6417747994D57"),
            (a(101), a100.as_str(), "08042541D30C8BF90D7092B1519AE0BC"),
            (a(1024), a100.as_str(), "332BDF5512AE49615F32C7D98C2DB86C"),
            (
                json!(0),
                "05C1BF6DA11560058000",
                "155B95BEDAC4B1E9EC1CDC9BB0DDDE58",
            ),
            (
                json!(1),
                "05C1ED172B6B2605BFF0",
                "20CD98B339BA78A5D0CF6953B87070B0",
            ),
            (
                json!(-1),
                "05C1D1A5BDDF9C054010",
                "19938E7A936C1C5B9E3AE842BBC16839",
            ),
            (
                json!(42),
                "05C1E75FCB273A05C04580",
                "08E6D561F6FD951DCC25E7E4EA2884B5",
            ),
            (
                json!(1.5),
                "05C1E9694167A805BFF8",
                "35C5DDEB6C795D16A9963C73C54E97BC",
            ),
            (
                json!(-128),
                "05C1D73349F54C053FA0",
                "01DAEDABF913540367FE219B2AD06148",
            ),
            (
                json!(127),
                "05C1DD539DDFCC05C05FE0",
                "0C507ACAC853ECA7977BF4CEFB562A25",
            ),
            (
                json!(2_147_483_647),
                "05C1E1F503DFB205C1DFFFFFFFFC",
                "2D9349D64712AEB5EB1406E2F0BE2725",
            ),
            (
                json!(-2_147_483_648_i64),
                "05C1DFBF252BCC053E20",
                "0B1660D5233C3171725B30D4A5F4CC1F",
            ),
            (
                json!(9_223_372_036_854_775_807_i64),
                "05C1B799AB2DD005C3E0",
                "2EDB959178DFCCA18983F89384D1629B",
            ),
            (
                json!(5e-324),
                "05C1E5C91F4D3005800101010101010102",
                "0E6CBA63A280927DE485DEF865800139",
            ),
            (
                json!(f64::MAX),
                "05C1CBE367C53005FFEFFFFFFFFFFFFFFE",
                "31424D996457102634591FF245DBCC4D",
            ),
        ];
        for (value, v1, v2) in vectors {
            let component = std::slice::from_ref(&value);
            assert_eq!(Hashing::V1.of(component), v1, "{value}");
            assert_eq!(Hashing::V2.of(component), v2, "{value}");
            assert_eq!(Hashing::Multi.of(component), v2, "{value}");
        }
    }

    #[test]
    fn several_components_are_hashed_one_by_one() {
        for (components, expected) in [
            (
                vec![json!(""), json!(true)],
                "32E9366E637A71B4E710384B2F4970A00E711127C5B5A8E4726AC6DD306A3E59",
            ),
            (
                vec![json!("contoso"), json!("alice"), json!("s-1")],
                "0A4BA22644167DA7161C260336FB542335EAEE8D6020FFCABDE75797DFE27C3413A64116527501DB5983FBF819099BFF",
            ),
        ] {
            assert_eq!(Hashing::Multi.of(&components), expected);
        }
    }
}
