//! Headers by which a proxy speaks for a client. The input is what a client sends, line by line, and a
//! trusted proxy adds its word at the right: then nothing that the client made up counts. Without a
//! proxy's word the input is read as if it were one: whatever it is, what comes of it can be used.

#![no_main]

use granian_uring::http1::{Connection, Event, Limits, RequestHead};
use granian_uring::listener::Address;
use granian_uring::proxy::{Format, Forwarded, Options, Scheme, Server, Trusted};
use libfuzzer_sys::fuzz_target;

const X_NAMES: [&str; 5] = [
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
];
const X_VALUES: [&str; 5] = ["203.0.113.7:1", "https", "example.org", "8443", "/outer"];
const FORWARDED: &str = "for=\"203.0.113.7:1\";proto=https;host=\"example.org:8443\"";

fuzz_target!(|data: &[u8]| {
    let lines: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
    let x = |index: usize| lines.iter().skip(index).step_by(X_NAMES.len()).copied();
    let x_lines = |index: usize| x(index).map(move |value| (X_NAMES[index], value));
    let made_up: Vec<_> = (0..X_NAMES.len()).flat_map(x_lines).collect();
    let told = X_NAMES.iter().zip(X_VALUES).map(|(name, value)| (*name, value.as_bytes()));
    check(Format::XForwarded, &made_up, &told.collect::<Vec<_>>());
    let made_up: Vec<_> = lines.iter().map(|line| ("Forwarded", *line)).collect();
    check(Format::Forwarded, &made_up, &[("Forwarded", FORWARDED.as_bytes())]);
});

fn check(format: Format, made_up: &[(&str, &[u8])], told: &[(&str, &[u8])]) {
    if let Some(forwarded) = resolve(format, made_up) {
        assert_usable(&forwarded);
    }
    let prefix = matches!(format, Format::XForwarded).then(|| "/outer".to_owned());
    let expected = Forwarded {
        client: Some(Address::tcp(([203, 0, 113, 7], 1).into())),
        scheme: Some(Scheme::Https),
        server: Some(Server { host: "example.org".to_owned(), port: 8443 }),
        prefix,
    };
    // As lines of their own, and at the end of the client's last ones.
    if let Some(found) = resolve(format, &[made_up, told].concat()) {
        assert_eq!(found, expected);
    }
    let mut joined = made_up.to_vec();
    let ends: Vec<Vec<u8>> = told
        .iter()
        .map(|(name, value)| {
            let last = joined.iter().rposition(|(other, _)| other == name);
            let before = last.map(|last| joined.remove(last).1);
            [before.unwrap_or_default(), b", ", value].concat()
        })
        .collect();
    joined.extend(told.iter().zip(&ends).map(|((name, _), value)| (*name, &value[..])));
    if let Some(found) = resolve(format, &joined) {
        assert_eq!(found, expected);
    }
}

/// What is told of a request with these headers; none if that is no request.
fn resolve(format: Format, headers: &[(&str, &[u8])]) -> Option<Forwarded> {
    let mut bytes = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
    for (name, value) in headers {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    let mut head = head(&bytes)?;
    let options = Options {
        trusted: Trusted::parse(&["10.0.0.0/8".to_owned()]).expect("a network"),
        headers: Some(format),
        rewrite_host: true,
        prefix: true,
        strip_untrusted: true,
    };
    let proxy = Address::tcp(([10, 0, 0, 1], 1).into());
    let local = Address::tcp(([10, 0, 0, 2], 80).into());
    let found = options.resolve(&mut head, (&proxy, &local), Scheme::Http);
    // With a host of another's the request is still one.
    let hosts: Vec<&[u8]> = head.headers().filter(|it| it.0 == b"host").map(|it| it.1).collect();
    assert_eq!(hosts.len(), 1);
    assert!(head_with_host(hosts[0]).is_some(), "{}", hosts[0].escape_ascii());
    Some(found.map_or_else(Forwarded::default, |found| *found))
}

fn head(bytes: &[u8]) -> Option<RequestHead> {
    match Connection::new(Limits::default()).next_event(&mut &bytes[..]) {
        Ok(Some(Event::Request(head))) => Some(head),
        _ => None,
    }
}

fn head_with_host(host: &[u8]) -> Option<RequestHead> {
    head(&[b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat())
}

fn assert_usable(forwarded: &Forwarded) {
    if let Some(Server { host, port }) = &forwarded.server {
        assert!(*port > 0 && !host.is_empty(), "{host:?}:{port}");
        assert!(host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@\\".contains(&byte)));
    }
    if let Some(prefix) = &forwarded.prefix {
        assert!(prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains("//"));
        assert!(!prefix.split('/').any(|segment| segment == ".."), "{prefix}");
    }
}
