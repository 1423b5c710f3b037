//! The response side, and the state machine.

use super::*;

const NONE: AutomaticHeaders<'static> = AutomaticHeaders { date: None, server: None };

#[test]
fn a_plain_exchange() {
    let mut connection = Connection::new(Limits::default());
    let mut input: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\nGET";
    let Some(Event::Request(head)) = connection.next_event(&mut input).unwrap() else { panic!() };
    assert_eq!((head.method(), head.path(), head.query()), ("GET", &b"/a"[..], &b"b"[..]));
    assert_eq!(connection.next_event(&mut input), Ok(Some(Event::End)));
    assert_eq!(connection.next_event(&mut input), Ok(None));
    assert_eq!(input, b"GET");
    let mut out = Vec::new();
    connection.start_response(200, std::iter::empty(), &NONE).unwrap();
    let frame = connection.send_body(2, true, &mut out).unwrap();
    assert_eq!(out, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n");
    assert!(frame.send_data);
    connection.next_cycle().unwrap();
}
