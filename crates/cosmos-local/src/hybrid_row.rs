//! Batches as the .NET SDK sends and expects them: rows in a stream of records (`microsoft/HybridRow: src/Serialization`,
//! and the batch schemas of `Azure/azure-cosmos-dotnet-v3`). All numbers are little-endian.

/// How every row begins, and with that every stream.
const ROW: u8 = 0x81;

/// Ids of the schemas.
const SEGMENT: i32 = 0x7fff_d8f0;
const RECORD: i32 = 0x7fff_d8f1;
const OPERATION: i32 = 2_145_473_648;
const RESULT: i32 = 2_145_473_649;

/// The header of a stream with one segment.
const SEGMENT_HEADER: [u8; 10] = [ROW, 0xf0, 0xd8, 0xff, 0x7f, 0x01, 10, 0, 0, 0];

/// Types of sparse fields.
mod kind {
    pub(super) const FALSE: u8 = 0x02;
    pub(super) const TRUE: u8 = 0x03;
    pub(super) const INT32: u8 = 0x07;
    pub(super) const UINT32: u8 = 0x0b;
    pub(super) const FLOAT64: u8 = 0x10;
    pub(super) const UTF8: u8 = 0x14;
    pub(super) const BINARY: u8 = 0x15;
}

/// Sparse fields of an operation and of a result.
mod token {
    pub(super) const IF_MATCH: u8 = 9;
    pub(super) const IF_NONE_MATCH: u8 = 10;
    pub(super) const MINIMAL: u8 = 12;
    pub(super) const CHARGE: u8 = 6;
}

/// One operation of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OperationRow {
    pub(crate) operation_type: i32,
    /// In the form of the partition key header.
    pub(crate) partition_key: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) if_match: Option<String>,
    pub(crate) if_none_match: Option<String>,
    pub(crate) minimal: bool,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResultRow<'a> {
    pub(crate) status: u16,
    pub(crate) substatus: u32,
    pub(crate) etag: Option<&'a str>,
    pub(crate) body: Option<&'a str>,
    pub(crate) charge: f64,
}

/// Whether a body is such a stream; JSON never starts with this byte.
pub(crate) fn is_stream(body: &[u8]) -> bool {
    body.first() == Some(&ROW)
}

/// Reads the operations of a stream; the error is for the client.
pub(crate) fn decode(body: &[u8]) -> Result<Vec<OperationRow>, String> {
    let mut reader = Reader { rest: body };
    let mut rows = Vec::new();
    while !reader.rest.is_empty() {
        let mut header = Reader { rest: reader.rest };
        match header.row_header()? {
            SEGMENT => {
                header.take(1)?;
                let length = header.length()?;
                reader.take(length.max(SEGMENT_HEADER.len()))?;
            }
            RECORD => {
                let length = header.length()?;
                let sum = header.u32()?;
                let row = header.take(length)?;
                if crc32fast::hash(row) != sum {
                    return Err("a record of the batch is damaged: its checksum is wrong".into());
                }
                rows.push(operation(row)?);
                reader = header;
            }
            other => return Err(format!("the batch has a row of the unknown schema {other}")),
        }
    }
    Ok(rows)
}

fn operation(row: &[u8]) -> Result<OperationRow, String> {
    let mut reader = Reader { rest: row };
    if reader.row_header()? != OPERATION {
        return Err("a record of the batch is not an operation".into());
    }
    let present = reader.take(1)?[0];
    let has = |bit: u8| present & 1 << bit != 0;
    let operation_type = reader.i32()?;
    let _resource_type = reader.i32()?;
    let mut variable =
        |bit: u8| -> Result<Option<&[u8]>, String> { has(bit).then(|| reader.bytes()).transpose() };
    let partition_key = variable(2)?.map(text).transpose()?;
    let _effective_partition_key = variable(3)?;
    let id = variable(4)?.map(text).transpose()?;
    let _binary_id = variable(5)?;
    let body = variable(6)?.map(<[u8]>::to_vec);
    let mut operation = OperationRow {
        operation_type,
        partition_key,
        id,
        body,
        ..OperationRow::default()
    };
    while let Some(kind) = reader.rest.first().copied() {
        reader.take(1)?;
        let token = reader.take(1)?[0];
        match (kind, token) {
            (kind::UTF8, token::IF_MATCH) => operation.if_match = Some(text(reader.bytes()?)?),
            (kind::UTF8, token::IF_NONE_MATCH) => {
                operation.if_none_match = Some(text(reader.bytes()?)?);
            }
            (kind::TRUE, token::MINIMAL) => operation.minimal = true,
            // What is of no use here is passed over.
            (kind::TRUE | kind::FALSE, _) => {}
            (kind::INT32 | kind::UINT32, _) => drop(reader.take(4)?),
            (kind::FLOAT64, _) => drop(reader.take(8)?),
            (kind::UTF8 | kind::BINARY, _) => drop(reader.bytes()?),
            (other, _) => {
                return Err(format!(
                    "an operation has a field of the unknown type {other:#x}"
                ));
            }
        }
    }
    Ok(operation)
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a text of the batch is not UTF-8".into())
}

/// Writes results as one stream.
pub(crate) fn encode<'a>(results: impl IntoIterator<Item = ResultRow<'a>>) -> Vec<u8> {
    let mut stream = SEGMENT_HEADER.to_vec();
    for result in results {
        let row = row(&result);
        stream.push(ROW);
        stream.extend(RECORD.to_le_bytes());
        stream.extend(u32::try_from(row.len()).unwrap_or(u32::MAX).to_le_bytes());
        stream.extend(crc32fast::hash(&row).to_le_bytes());
        stream.extend(row);
    }
    stream
}

fn row(result: &ResultRow<'_>) -> Vec<u8> {
    let mut row = vec![ROW];
    row.extend(RESULT.to_le_bytes());
    let bit = |is_present: bool, bit: u8| u8::from(is_present) << bit;
    row.push(
        bit(true, 0)
            | bit(result.substatus != 0, 1)
            | bit(result.etag.is_some(), 2)
            | bit(result.body.is_some(), 3),
    );
    row.extend(i32::from(result.status).to_le_bytes());
    row.extend(result.substatus.to_le_bytes());
    for text in [result.etag, result.body].into_iter().flatten() {
        push_length(&mut row, text.len());
        row.extend(text.as_bytes());
    }
    row.extend([kind::FLOAT64, token::CHARGE]);
    row.extend(result.charge.to_le_bytes());
    row
}

/// Seven bits at a time, the lowest first; the top bit says that more follow.
fn push_length(row: &mut Vec<u8>, mut length: usize) {
    loop {
        let group = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            row.push(group);
            return;
        }
        row.push(group | 0x80);
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or("the batch ends in the middle of a row")?;
        self.rest = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<[u8; 4], String> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(4)?);
        Ok(word)
    }

    fn i32(&mut self) -> Result<i32, String> {
        self.word().map(i32::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.word().map(u32::from_le_bytes)
    }

    fn length(&mut self) -> Result<usize, String> {
        usize::try_from(self.i32()?).map_err(|_| "a length in the batch is negative".into())
    }

    /// The schema of the row that begins here.
    fn row_header(&mut self) -> Result<i32, String> {
        if self.take(1)?[0] != ROW {
            return Err("the batch has no row where one should begin".into());
        }
        self.i32()
    }

    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let mut length = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.take(1)?[0];
            length |= usize::from(byte & 0x7f)
                .checked_shl(shift)
                .unwrap_or_default();
            if byte & 0x80 == 0 {
                return self.take(length);
            }
        }
        Err("a length in the batch is too long".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: Vec<char> = hex.chars().filter(|char| !char.is_whitespace()).collect();
        hex.chunks(2)
            .map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).expect("hex"))
            .collect()
    }

    fn stream(rows: &[&str]) -> Vec<u8> {
        let mut stream = SEGMENT_HEADER.to_vec();
        for row in rows {
            let row = bytes(row);
            stream.extend(bytes("81 F1D8FF7F"));
            stream.extend((row.len() as u32).to_le_bytes());
            stream.extend(crc32fast::hash(&row).to_le_bytes());
            stream.extend(row);
        }
        stream
    }

    #[test]
    fn operations_are_read() {
        let rows = decode(&stream(&[
            "81 7054E17F 43 00000000 02000000 0A 7B226964223A2261227D",
            "81 7054E17F 13 04000000 02000000 01 61 14 09 03 223122",
        ]));
        let expected = [
            OperationRow {
                operation_type: 0,
                body: Some(br#"{"id":"a"}"#.to_vec()),
                ..OperationRow::default()
            },
            OperationRow {
                operation_type: 4,
                id: Some("a".into()),
                if_match: Some("\"1\"".into()),
                ..OperationRow::default()
            },
        ];
        assert_eq!(rows, Ok(expected.to_vec()));
    }

    #[test]
    fn results_are_written() {
        let created = ResultRow {
            status: 201,
            substatus: 0,
            etag: Some("\"e1\""),
            body: None,
            charge: 5.0,
        };
        assert_eq!(
            encode([created]),
            bytes(
                "81F0D8FF7F010A000000 81F1D8FF7F1D000000890DB283
                 817154E17F05C9000000000000000422653122 10060000000000001440"
            )
        );
    }

    #[test]
    fn damage_is_found_and_nothing_panics() {
        let good = stream(&["81 7054E17F 13 04000000 02000000 01 61 14 09 03 223122"]);
        let last = good.len() - 1;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            let is_header = at < SEGMENT_HEADER.len();
            assert!(decode(&bad).is_err() || is_header, "{at}");
            assert!(
                at == 0 || at == SEGMENT_HEADER.len() || decode(&good[..at]).is_err(),
                "{at}"
            );
        }
        assert!(decode(&good[..last]).is_err());
        let long = "x".repeat(300);
        let result = ResultRow {
            status: 200,
            substatus: 1,
            etag: None,
            body: Some(&long),
            charge: 1.0,
        };
        let row = row(&result);
        assert_eq!(row[14..16], [0xac, 0x02], "300 in groups of seven bits");
    }
}
