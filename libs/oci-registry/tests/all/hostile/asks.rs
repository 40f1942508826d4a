//! Bytes become requests: mostly almost right, so that they get far. `{blob}`, `{manifest}` and `{body}` stand for
//! digests of what is stored and of the request's own body, `{range}` for where that body lies as a first chunk, `{session}` for
//! the last place that an upload was given.

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

const METHODS: &[&str] = &["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "LINK"];
const REPOSITORIES: &[&str] = &[
    "known/repo",
    "other",
    "a/b/c",
    "..",
    "../../etc",
    "a/../b",
    "%2e%2e/x",
    "a%2fb",
    "A",
    "a//b",
    "_uploads",
    "_manifests",
    "known/repo/_manifests",
    "known/repo/_uploads/x",
    "a__b",
    "a.-b",
    "-a",
    "a%00b",
    "tmp",
    "blobs",
    ".",
    "known",
    "",
];
const PLACES: &[&str] = &[
    "/manifests/",
    "/blobs/",
    "/blobs/uploads/",
    "/blobs/uploads",
    "/tags/list",
    "/referrers/",
    "/tags/",
    "/",
    "/blobs//",
];
const REFERENCES: &[&str] = &[
    "tag",
    "{blob}",
    "{manifest}",
    "{body}",
    "latest",
    "..",
    "../../x",
    "%2e%2e",
    "_tag",
    "-tag",
    ".tag",
    "{blob}x",
    "sha256:",
    "sha256:00",
    "sha512:{zeros}{zeros}",
    "sha256:{zeros}",
    "SHA256:{zeros}",
    "md5:00",
    "sha256:../../../etc/passwd",
    "",
    "00000000-0000-0000-0000-000000000000",
    "a%00",
    "{zeros}",
    "sha256-{zeros}",
];
const QUERIES: &[&str] = &[
    "",
    "?digest={body}",
    "?digest={blob}",
    "?digest=sha256:{zeros}",
    "?digest=..%2f..",
    "?mount={blob}&from=known/repo",
    "?mount={blob}",
    "?mount={blob}&from=../x",
    "?n=0",
    "?n=1",
    "?n=-1",
    "?n=99999999999999999999",
    "?n=1&last=tag",
    "?last=..",
    "?artifactType=a/b",
    "?artifactType=%00",
    "?tag=one&tag=two",
    "?tag=..%2f..",
    "?digest-algorithm=sha512",
    "?digest-algorithm=md5",
    "?digest={body}&digest={blob}",
    "?_state=x",
    "?ns=x",
    "?digest=%ff",
];
const HEADERS: &[&str] = &[
    "content-type",
    "content-type",
    "range",
    "content-range",
    "content-length",
    "accept",
    "if-none-match",
    "if-match",
    "if-range",
    "authorization",
    "expect",
    "host",
    "x-forwarded-host",
    "x-forwarded-proto",
    "forwarded",
    "content-encoding",
    "docker-content-digest",
];
const VALUES: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/octet-stream",
    "application/json",
    "text/html",
    "bytes=0-",
    "bytes=0-0",
    "bytes=-1",
    "bytes=5-2",
    "bytes=0-1,3-4",
    "bytes=99999999999999999999-",
    "0-9",
    "0-0",
    "10-19",
    "9-0",
    "-",
    "0-99999999999999999999",
    "18446744073709551615-18446744073709551615",
    "bytes 0-9/10",
    "0",
    "10",
    "-1",
    "*/*",
    "*",
    "\"{blob}\"",
    "W/\"{blob}\"",
    "Basic YTpi",
    "Bearer x",
    "100-continue",
    "gzip",
    "evil.example\\\"",
    "",
];
const MANIFESTS: &[&str] = &[
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{blob}","size":4},"layers":[]}"#,
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"a/b","digest":"sha256:{zeros}","size":4},"layers":[]}"#,
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{manifest}","size":1}]}"#,
    r#"{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"{blob}","size":4},"layers":[{"mediaType":"a/b","digest":"{blob}","size":4}],"subject":{"mediaType":"a/b","digest":"{manifest}","size":18446744073709551615}}"#,
    r#"{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"{blob}","size":4},"layers":[],"artifactType":"x/y","subject":{"mediaType":"a/b","digest":"sha512:{zeros}{zeros}","size":1},"annotations":{"":"\u0000"}}"#,
    r#"{"schemaVersion":1,"manifests":[{"digest":"../../x","size":-1}]}"#,
    r#"{"schemaVersion":2,"manifests":null,"layers":{}}"#,
    "[]",
    "{}",
    "null",
    "\u{0}",
];

/// Takes decisions from bytes; when they are used up, every decision is the first choice.
pub(crate) struct Choices<'b> {
    bytes: &'b [u8],
}

impl<'b> Choices<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(*first) % count
    }

    /// Up to 255 bytes as they are.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(256).min(self.bytes.len());
        let (taken, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        taken.to_vec()
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// One of the list, and now and then anything.
    fn word(&mut self, list: &[&str]) -> String {
        let number = self.below(list.len() + list.len() / 8 + 1);
        list.get(number).map_or_else(|| self.text(), |word| (*word).to_owned())
    }
}

/// At most six requests, one after the other.
pub(crate) fn asks(choices: &mut Choices<'_>) -> Vec<Ask> {
    (0..=choices.below(6)).map(|_| ask(choices)).collect()
}

fn ask(choices: &mut Choices<'_>) -> Ask {
    let repository = if choices.below(3) > 0 { REPOSITORIES[0].to_owned() } else { choices.word(REPOSITORIES) };
    let query = if choices.below(2) > 0 { String::new() } else { choices.word(QUERIES) };
    let mut headers: Vec<(&str, String)> = Vec::new();
    let (mut method, target) = match choices.below(16) {
        0 | 1 => ("POST", format!("/v2/{repository}/blobs/uploads/{query}")),
        2 | 3 => ("PATCH", "{session}".to_owned() + &query),
        4 | 5 => ("PUT", format!("{{session}}?digest={}", choices.word(REFERENCES))),
        6 => ("PUT", "{session}?digest={body}".to_owned()),
        7..=9 => {
            headers.push(("content-type", VALUES[choices.below(2)].to_owned()));
            ("PUT", format!("/v2/{repository}/manifests/{}{query}", choices.word(REFERENCES)))
        }
        10 => (METHODS[choices.below(METHODS.len())], format!("/v2/{repository}/blobs/{}", choices.word(REFERENCES))),
        11 => {
            (METHODS[choices.below(METHODS.len())], format!("/v2/{repository}/manifests/{}", choices.word(REFERENCES)))
        }
        12 => ("GET", format!("/v2/{repository}/referrers/{}{query}", choices.word(REFERENCES))),
        13 => ("GET", format!("/v2/{repository}{}{query}", PLACES[choices.below(PLACES.len())])),
        14 => ("GET", "/v2/_catalog".to_owned() + &query),
        _ => (METHODS[choices.below(METHODS.len())], format!("/v2/{}{}", choices.text(), choices.word(PLACES))),
    };
    if choices.below(8) == 1 {
        method = METHODS[choices.below(METHODS.len())];
    }
    if method == "PATCH" && choices.below(2) == 0 {
        headers.push(("content-range", "{range}".to_owned()));
    }
    headers.extend((0..choices.below(4)).map(|_| (HEADERS[choices.below(HEADERS.len())], choices.word(VALUES))));
    let body = match choices.below(4) {
        0 => choices.bytes(),
        1 if method == "POST" => Vec::new(),
        _ => choices.word(MANIFESTS).into_bytes(),
    };
    Ask { method, target, headers, body }
}
