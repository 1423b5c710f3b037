//! The header of the PROXY protocol: no bytes panic, no cut changes what is understood, and what is
//! understood, written again by a second hand as version 2, is understood the same.

#![no_main]

use std::net::IpAddr;

use granian_uring::listener::Address;
use granian_uring::proxy::protocol::{Header, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    for cut in 0..data.len() {
        match (&whole, parse(&data[..cut])) {
            // All of the header is there already, or not yet.
            (Ok(Some((header, length))), Ok(Some(found))) => {
                assert!(cut >= *length && found == (header.clone(), *length));
            }
            (Ok(Some((_, length))), Ok(None)) => assert!(cut < *length),
            (Err(_) | Ok(None), Ok(None)) => {}
            // What was wrong stays wrong, for the same reason.
            (Err(error), Err(found)) => assert_eq!(found, *error),
            (whole, found) => panic!("{found:?} after {cut} bytes, then {whole:?}"),
        }
    }
    if let Ok(Some((header, length))) = whole {
        assert!(length <= data.len());
        if let Some(again) = written(&header) {
            assert_eq!(parse(&again), Ok(Some((header, again.len()))));
        }
    }
});

/// The header as version 2 has it; none for what it says in another way.
fn written(header: &Header) -> Option<Vec<u8>> {
    let mut rest = Vec::new();
    let family = match header.ends.as_ref()? {
        (Address::Tcp(source), Address::Tcp(target)) => {
            let family = match (source.ip(), target.ip()) {
                (IpAddr::V4(source), IpAddr::V4(target)) => {
                    rest.extend(source.octets().into_iter().chain(target.octets()));
                    0x11
                }
                (source, target) => {
                    rest.extend(octets_v6(source).into_iter().chain(octets_v6(target)));
                    0x21
                }
            };
            rest.extend([source.port().to_be_bytes(), target.port().to_be_bytes()].concat());
            family
        }
        _ => return None,
    };
    if let Some(tls) = &header.tls {
        let mut vector = vec![1, 0, 0, 0, 0];
        for (kind, name) in [(0x21, &tls.version), (0x23, &tls.cipher)] {
            if let Some(name) = name {
                vector.extend(tlv(kind, name.as_bytes()));
            }
        }
        rest.extend(tlv(0x20, &vector));
    }
    let length = u16::try_from(rest.len()).ok()?.to_be_bytes();
    Some([b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &length, &rest].concat())
}

fn octets_v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("it came in such a vector");
    [&[kind][..], &length.to_be_bytes(), value].concat()
}
