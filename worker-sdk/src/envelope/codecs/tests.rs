//! What goes through codecs, with two that do next to nothing.

use bellows_registry::id::{DefinitionId, TaskId};

use super::super::codec::Encoded;
use super::*;

/// Adds a letter at the end.
#[derive(Debug)]
struct Letter(&'static str);

impl Codec for Letter {
    fn id(&self) -> &str {
        self.0
    }

    fn encode(&self, _: &About, body: &[u8]) -> Result<Option<Encoded>, CodecError> {
        let mut whole = body.to_vec();
        whole.extend_from_slice(self.0.as_bytes());
        Ok((body != b"as it is").then(|| Encoded::under("k", whole)))
    }

    fn decode(&self, _: &About, key: Option<&str>, body: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
        assert_eq!(key, Some("k"));
        let whole = body.strip_suffix(self.0.as_bytes());
        let whole = whole.ok_or_else(|| CodecError::Damaged(self.0.to_owned()))?;
        if whole.len() > limit { Err(CodecError::TooLarge { limit }) } else { Ok(whole.to_vec()) }
    }
}

fn about() -> About {
    About::payload(&DefinitionId::new("default", "act").unwrap(), TaskId::from_bits(1))
}

fn both() -> Codecs {
    Codecs::new().with(Letter("a")).with(Letter("b"))
}

async fn sealed(codecs: &Codecs, body: &'static str) -> Sealed {
    codecs.seal_payload(&about(), body.into(), 64).await.unwrap()
}

#[tokio::test]
async fn codecs_are_applied_in_order_and_undone_from_the_last() {
    let sealed = sealed(&both(), "x").await;
    assert_eq!(sealed.body, "xab");
    let names: Vec<&str> = sealed.codecs.iter().map(|applied| applied.codec.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    // The reader's own order does not matter, nor whether it writes with them.
    let reader = Codecs::new().reads(Letter("b")).with(Letter("a"));
    assert_eq!(reader.open(&about(), &sealed.codecs, sealed.body).await.unwrap(), "x");
}

#[tokio::test]
async fn a_codec_that_leaves_a_body_alone_is_not_named() {
    let sealed = sealed(&both(), "as it is").await;
    assert_eq!((sealed.body.as_ref(), sealed.codecs), (b"as it is".as_slice(), Vec::new()));
}

#[tokio::test]
async fn a_body_of_an_unknown_codec_is_not_touched() {
    let sealed = sealed(&both(), "x").await;
    let reader = Codecs::new().reads(Letter("b"));
    let refused = reader.open(&about(), &sealed.codecs, sealed.body).await.unwrap_err();
    assert_eq!(refused.to_string(), "codec \"a\" is not known to this program");
    let many = vec![Applied { codec: "b".to_owned(), key: None }; 10];
    assert!(matches!(reader.open(&about(), &many, Bytes::new()).await, Err(CodecError::Damaged(_))));
}

#[tokio::test]
async fn sizes_are_bounded_before_and_after() {
    let seal = |codecs: Codecs, bytes: usize| async move {
        codecs.seal_payload(&about(), vec![b'x'; bytes].into(), 64).await.map(|sealed| sealed.body.len())
    };
    assert_eq!(seal(Codecs::new(), 64).await.unwrap(), 64);
    let refused = seal(Codecs::new(), 65).await.unwrap_err();
    assert!(matches!(refused, SealError::TooLarge { bytes: 65, limit: 64 }), "{refused}");
    let refused = seal(both(), 63).await.unwrap_err();
    assert!(matches!(refused, SealError::TooLarge { bytes: 65, limit: 64 }), "encoded: {refused}");
    let refused = seal(both().max_decoded(10), 11).await.unwrap_err();
    assert!(matches!(refused, SealError::TooLarge { bytes: 11, limit: 10 }), "raw: {refused}");
}

#[test]
fn codecs_that_cannot_work_are_refused_with_the_limit() {
    let said = |codecs: Codecs| codecs.check().unwrap_err().to_string();
    assert!(both().check().is_ok());
    assert_eq!(
        said(Codecs::new().with(Letter("a")).with(Letter("a"))),
        "codec \"a\" is not allowed: use each codec once"
    );
    assert!(
        said(Codecs::new().with(Letter("a b")))
            .starts_with("codec \"a b\" is not allowed: use 1 to 64 letters")
    );
    let nine = "abcdefghi".split("").filter(|id| !id.is_empty()).fold(Codecs::new(), Codecs::with_letter);
    assert_eq!(said(nine), "codecs \"9\" is not allowed: use at most 8");
    assert!(said(Codecs::new().max_decoded(1 << 30)).ends_with("use at most 268435456 bytes"));
}

impl Codecs {
    fn with_letter(self, letter: &'static str) -> Self {
        self.with(Letter(letter))
    }
}
