//! Signed requests over one connection, which is kept open for as long as the server keeps it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{Timestamp, fmt::rfc2822};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

use crate::Outcome;

/// The database that everything happens in.
const DATABASE: &str = "load";

/// Signatures are good for a quarter of an hour.
const SIGN_AGAIN: Duration = Duration::from_secs(60);

/// An account to measure.
#[derive(Clone)]
pub(crate) struct Account {
    host: String,
    hmac: Hmac<Sha256>,
}

impl Account {
    pub(crate) fn new(endpoint: &str, key: &str) -> Outcome<Self> {
        let host = endpoint.strip_prefix("http://").ok_or_else(|| {
            format!("{endpoint} cannot be measured: only http:// endpoints can, https:// through a proxy that ends TLS")
        })?;
        Ok(Self {
            host: host.trim_end_matches('/').to_owned(),
            hmac: Hmac::new_from_slice(&STANDARD.decode(key)?)?,
        })
    }
}

/// An answer: its status, its headers as they came, its body.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    head: &'a str,
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = |line: &str| {
            let (found, _) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(found.len() + 1)
        };
        self.head
            .lines()
            .find_map(|line| value(line).map(|start| line[start..].trim()))
    }

    pub(crate) fn expect(self, expected: &[u16]) -> Outcome<Self> {
        if expected.contains(&self.status) {
            return Ok(self);
        }
        let body = String::from_utf8_lossy(self.body);
        Err(format!("answered {}: {body}", self.status).into())
    }
}

/// What a request is about, as it is signed.
#[derive(Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) resource_type: &'a str,
    pub(crate) link: &'a str,
}

pub(crate) struct Connection {
    account: Account,
    stream: TcpStream,
    date: String,
    dated: SystemTime,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// The server has said that it answers no more here.
    is_over: bool,
}

fn connect(account: &Account) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(&account.host)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

impl Connection {
    pub(crate) fn open(account: &Account) -> Outcome<Self> {
        Ok(Self {
            account: account.clone(),
            stream: connect(account)?,
            is_over: false,
            date: date(),
            dated: SystemTime::now(),
            request: Vec::new(),
            answer: Vec::new(),
        })
    }

    /// Sends a request and reads its answer.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        signed: Signed<'_>,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Outcome<Answer<'_>> {
        if self.dated.elapsed()? > SIGN_AGAIN {
            (self.date, self.dated) = (date(), SystemTime::now());
        }
        let (kind, link) = (signed.resource_type, signed.link);
        let payload = format!(
            "{}\n{kind}\n{link}\n{}\n\n",
            method.to_lowercase(),
            self.date.to_lowercase()
        );
        let signature = self.account.hmac.clone().chain_update(payload).finalize();
        let token = format!(
            "type=master&ver=1.0&sig={}",
            STANDARD.encode(signature.into_bytes())
        );
        let token = utf8_percent_encode(&token, NON_ALPHANUMERIC);
        self.request.clear();
        write!(
            self.request,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nx-ms-date: {}\r\nx-ms-version: 2020-07-15\r\nauthorization: {token}\r\ncontent-length: {}\r\n",
            self.account.host,
            self.date,
            body.len()
        )?;
        for (name, value) in headers {
            write!(self.request, "{name}: {value}\r\n")?;
        }
        self.request.extend_from_slice(b"\r\n");
        self.request.extend_from_slice(body);
        if self.is_over {
            self.stream = connect(&self.account)?;
        }
        self.stream.write_all(&self.request)?;
        self.receive()
    }

    fn receive(&mut self) -> Outcome<Answer<'_>> {
        self.answer.clear();
        let mut chunk = [0; 64 * 1024];
        let (mut head, mut length) = (None, 0);
        loop {
            if let Some(head) = head
                && self.answer.len() >= head + length
            {
                break;
            }
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err("the connection was closed".into());
            }
            self.answer.extend_from_slice(&chunk[..count]);
            if head.is_none()
                && let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n")
            {
                head = Some(end + 4);
                let head = std::str::from_utf8(&self.answer[..end])?;
                let answer = Answer {
                    status: 0,
                    head,
                    body: &[],
                };
                length = match answer.header("content-length") {
                    Some(length) => length.parse()?,
                    // Answers without a body, such as 204.
                    None => 0,
                };
            }
        }
        let head_length = head.unwrap_or_default();
        let head = std::str::from_utf8(&self.answer[..head_length])?;
        let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
        let answer = Answer {
            status,
            head,
            body: &self.answer[head_length..],
        };
        self.is_over = answer
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok(answer)
    }

    pub(crate) fn create_database(&mut self) -> Outcome<()> {
        let signed = Signed {
            resource_type: "dbs",
            link: "",
        };
        let body = format!("{{\"id\":\"{DATABASE}\"}}");
        self.send("POST", "/dbs", signed, &[], body.as_bytes())?
            .expect(&[201])?;
        Ok(())
    }

    pub(crate) fn delete_database(&mut self) -> Outcome<()> {
        let link = format!("dbs/{DATABASE}");
        let signed = Signed {
            resource_type: "dbs",
            link: &link,
        };
        self.send("DELETE", &format!("/{link}"), signed, &[], b"")?
            .expect(&[204, 404])?;
        Ok(())
    }

    pub(crate) fn create_container(&mut self, name: &str) -> Outcome<()> {
        let link = format!("dbs/{DATABASE}");
        let signed = Signed {
            resource_type: "colls",
            link: &link,
        };
        let body = format!(
            "{{\"id\":\"{name}\",\"partitionKey\":{{\"paths\":[\"/deviceId\"],\"kind\":\"Hash\",\"version\":2}}}}"
        );
        self.send(
            "POST",
            &format!("/{link}/colls"),
            signed,
            &[],
            body.as_bytes(),
        )?
        .expect(&[201])?;
        Ok(())
    }
}

/// The link of a container.
pub(crate) fn container(name: &str) -> String {
    format!("dbs/{DATABASE}/colls/{name}")
}

fn date() -> String {
    let mut text = Vec::new();
    rfc2822::DateTimePrinter::new()
        .print_timestamp_rfc9110(&Timestamp::now(), jiff::fmt::StdIoWrite(&mut text))
        .expect("writing to memory does not fail");
    String::from_utf8_lossy(&text).into_owned()
}
