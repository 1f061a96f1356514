//! Keeps secrets out of log lines.
//!
//! A handler may print anything. Like the real host, ours masks what follows well-known markers before a line is logged;
//! the list of markers is our own.

use std::borrow::Cow;

/// What stands in place of a secret.
const MASK: &str = "[hidden]";

/// Text after which a secret follows, lower case.
const MARKERS: [&str; 9] = [
    "accountkey=",
    "accesskey=",
    "sharedaccesskey=",
    "sharedaccesssignature=",
    "password=",
    "clientsecret=",
    "access_token=",
    "code=",
    "bearer ",
];

/// `line` with every secret after a known marker replaced.
pub(crate) fn masked(line: &str) -> Cow<'_, str> {
    let lower = line.to_ascii_lowercase();
    if !MARKERS.iter().any(|marker| lower.contains(marker)) {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut at = 0;
    while at < line.len() {
        let next = MARKERS
            .iter()
            .filter_map(|marker| Some((lower[at..].find(marker)? + at, marker.len())))
            .min_by_key(|(start, length)| (*start, usize::MAX - length));
        let Some((start, length)) = next else { break };
        let secret = start + length;
        let end = line[secret..]
            .find(|c: char| c.is_whitespace() || matches!(c, ';' | '"' | '\'' | '&' | '<' | ','))
            .map_or(line.len(), |offset| secret + offset);
        out.push_str(&line[at..secret]);
        if end > secret {
            out.push_str(MASK);
        }
        at = end;
    }
    out.push_str(&line[at..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_what_follows_a_marker_and_nothing_else() {
        for (line, expected) in [
            ("nothing here", "nothing here"),
            (
                "AccountEndpoint=http://x/;AccountKey=abc==;Next=1",
                "AccountEndpoint=http://x/;AccountKey=[hidden];Next=1",
            ),
            (
                "Endpoint=http://x;AccessKey=k;accountkey=z tail",
                "Endpoint=http://x;AccessKey=[hidden];accountkey=[hidden] tail",
            ),
            (
                "GET /api/x?code=abc&y=1 Authorization: Bearer eyJ.a.b",
                "GET /api/x?code=[hidden]&y=1 Authorization: Bearer [hidden]",
            ),
            (
                "Grüße, password=süß; fertig",
                "Grüße, password=[hidden]; fertig",
            ),
            ("code=", "code="),
        ] {
            assert_eq!(masked(line), expected);
        }
    }
}
