//! The page at `GET /`, and the policy that lets its own script run and nothing else.

use aws_lc_rs::digest::{SHA256, digest};

use crate::http::Response;

use super::answer::response;

const HTML: &str = include_str!("page.html");

/// The page with its `Content-Security-Policy`.
#[derive(Debug)]
pub(super) struct Page {
    policy: String,
}

impl Page {
    /// Hashes the inline script and style once.
    pub(super) fn new() -> Self {
        Self { policy: policy(HTML) }
    }

    pub(super) fn response(&self) -> Response {
        response(200, "text/html; charset=utf-8", HTML.as_bytes().to_vec())
            .with("Content-Security-Policy", self.policy.clone())
            .with("Permissions-Policy", "microphone=(self), autoplay=(self)")
    }
}

/// Nothing by default; the inline elements by their hashes; requests to us alone. Audio of a call reaches its element
/// as an object, which needs no source; `blob:` is for a recording played back, `data:` for the icon. WebAudio's
/// built-in nodes need neither worker nor worklet.
fn policy(html: &str) -> String {
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; media-src 'self' blob:; \
         img-src 'self' data:; worker-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        sources(html, "script"),
        sources(html, "style")
    )
}

/// `'sha256-…'` of each inline element of this name, as CSP hashes them: the bytes between the tags.
fn sources(html: &str, name: &str) -> String {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut rest = html;
    let mut hashes = Vec::new();
    while let Some((_, element)) = rest.split_once(&open) {
        let Some((_, content)) = element.split_once('>') else { break };
        let Some((content, after)) = content.split_once(&close) else { break };
        let hash = digest(&SHA256, content.as_bytes());
        hashes.push(format!("'sha256-{}'", base64_simd::STANDARD.encode_to_string(hash.as_ref())));
        rest = after;
    }
    if hashes.is_empty() { "'none'".to_owned() } else { hashes.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_elements_are_hashed_as_browsers_hash_them() {
        // printf "alert(1)" | openssl dgst -sha256 -binary | base64
        let html = "<style>\n</style><script type=\"module\">alert(1)</script>";
        let policy = policy(html);
        assert!(policy.contains("script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"), "{policy}");
        assert!(policy.contains("style-src 'sha256-AbpHGcgLb+kRsJGnwFEktk7uzpZOCcBY74+YBdrKVGs='"), "{policy}");
    }

    #[test]
    fn every_stage_of_latency_is_explained_in_the_page() {
        for stage in crate::stats::Stage::ALL {
            let entry = format!("\n  {}: [\"", stage.label());
            assert!(HTML.contains(&entry), "STAGES of the page lacks {}: its label would stand alone", stage.label());
        }
    }

    #[test]
    fn the_page_has_one_script_and_one_style_and_fetches_nothing() {
        for name in ["script", "style"] {
            assert_eq!(sources(HTML, name).matches("sha256-").count(), 1, "{name}");
        }
        for outside in ["src=\"http", "href=\"http", "@import", " onclick=", " style=\"", "\r"] {
            assert!(!HTML.contains(outside), "{outside:?} is not allowed by the policy");
        }
    }
}
