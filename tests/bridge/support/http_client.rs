//! A small blocking HTTP/1.1 client for JSON APIs: one connection for each request.
//!
//! It shares no code with the server but the tokeniser of heads, and is stricter than a browser: a body that is not
//! as long as announced is an error.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long a connection, a write or a read may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest response that is read.
const RESPONSE_MAX: u64 = 4 << 20;

/// The most header fields of a response.
const HEADERS_MAX: usize = 32;

/// Speaks to one server.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    address: SocketAddr,
    token: Option<String>,
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Status code.
    pub(crate) status: u16,
    /// Names in lower case, and values.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: String,
}

impl HttpClient {
    /// A client of the server at `address`.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, token: None }
    }

    /// The same, with `Authorization: Bearer <token>` on each request.
    pub(crate) fn with_token(self, token: &str) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// GET.
    ///
    /// # Panics
    /// Like each of these verbs: when the exchange fails; any status is a success.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, None).expect("the server answers")
    }

    /// DELETE.
    pub(crate) fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path, None).expect("the server answers")
    }

    /// POST of JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path, Some(&body.to_string())).expect("the server answers")
    }

    /// PUT of JSON.
    pub(crate) fn put(&self, path: &str, body: &Value) -> Response {
        self.request("PUT", path, Some(&body.to_string())).expect("the server answers")
    }

    /// Any request, its body sent as `application/json`.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&str>) -> io::Result<Response> {
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let entity = body.map(|body| format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        let (entity, body) = (entity.unwrap_or_default(), body.unwrap_or_default());
        let host = self.address;
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{token}{entity}\r\n{body}");
        Response::parse(&self.exchange(request.as_bytes())?, method == "HEAD")
    }

    /// Sends these bytes, whatever they are, and reads until the server closes.
    pub(crate) fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        let mut response = Vec::new();
        stream.take(RESPONSE_MAX).read_to_end(&mut response)?;
        Ok(response)
    }
}

impl Response {
    /// Reads one whole response. A response to HEAD announces a length and has no body.
    pub(crate) fn parse(bytes: &[u8], head: bool) -> io::Result<Self> {
        let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(len) = parsed.parse(bytes).map_err(|error| broken(&error.to_string()))? else {
            return Err(broken("the head is cut off"));
        };
        let header = |field: &httparse::Header<'_>| {
            (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned())
        };
        let headers: Vec<_> = parsed.headers.iter().map(header).collect();
        let status = parsed.code.expect("a complete head has a code");
        let body = String::from_utf8(bytes[len..].to_vec()).map_err(|_| broken("the body is not UTF-8"))?;
        let response = Self { status, headers, body };
        let announced = response.header("content-length").map_or(Ok(0), str::parse);
        let announced = announced.map_err(|_| broken("content-length is no number"))?;
        if response.body.len() != if head { 0 } else { announced } {
            return Err(broken("the body is not as long as announced"));
        }
        Ok(response)
    }

    /// The first field of this name, which is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in a body of status {}", self.status))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use serde_json::json;

    use super::*;

    /// A server for one exchange that returns what it was sent.
    fn serve(response: &'static str) -> (HttpClient, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = HttpClient::new(listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let len = stream.read(&mut request).unwrap();
            stream.write_all(response.as_bytes()).unwrap();
            String::from_utf8(request[..len].to_vec()).unwrap()
        });
        (client, server)
    }

    #[test]
    fn a_post_carries_json_and_the_token_and_its_reply_is_read_whole() {
        let reply = "HTTP/1.1 409 Conflict\r\nRetry-After: 5\r\nContent-Length: 13\r\n\r\n{\"code\":\"no\"}";
        let (client, server) = serve(reply);
        let address = client.address;
        let response = client.with_token("secret").post("/api/sessions", &json!({"callId": "é"}));
        assert_eq!((response.status, response.header("retry-after")), (409, Some("5")));
        assert_eq!(response.json(), json!({"code": "no"}));
        let expected = format!(
            "POST /api/sessions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer secret\r\n\
             Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{{\"callId\":\"é\"}}"
        );
        assert_eq!(server.join().unwrap(), expected);
    }

    #[test]
    fn the_other_verbs_say_their_name() {
        let (client, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.get("/a").status, 200);
        assert!(server.join().unwrap().starts_with("GET /a HTTP/1.1\r\n"));
        let (client, server) = serve("HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(client.delete("/b").status, 204);
        assert!(server.join().unwrap().starts_with("DELETE /b HTTP/1.1\r\n"));
        let (client, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.put("/c", &json!({})).status, 200);
        assert!(server.join().unwrap().ends_with("\r\n\r\n{}"));
        let (client, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n");
        assert_eq!(client.request("HEAD", "/d", None).unwrap().status, 200);
        server.join().unwrap();
    }

    #[test]
    fn a_body_of_another_length_than_announced_is_an_error() {
        for reply in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-",
        ] {
            let (client, server) = serve(reply);
            assert!(client.request("GET", "/", None).is_err(), "{reply}");
            server.join().unwrap();
        }
    }
}
