//! Compression.

use std::io::Read;

use super::codec::{About, Codec, CodecError, Encoded};

const ID: &str = "zstd";
/// Smaller bodies are not worth it.
const WORTH: usize = 256;

/// Compresses bodies with zstd, where that makes them smaller. Its name is `zstd`.
#[derive(Debug, Clone)]
pub struct Zstd {
    level: i32,
}

impl Zstd {
    /// Level 3: fast, and small enough.
    pub fn new() -> Self {
        Self { level: 3 }
    }

    /// Another level: 1 is the fastest, 19 the smallest; others count as the nearest.
    pub fn level(self, level: i32) -> Self {
        Self { level: level.clamp(1, 19) }
    }
}

impl Default for Zstd {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for Zstd {
    fn id(&self) -> &str {
        ID
    }

    fn encode(&self, _about: &About, body: &[u8]) -> Result<Option<Encoded>, CodecError> {
        if body.len() < WORTH {
            return Ok(None);
        }
        let packed = zstd::bulk::compress(body, self.level)
            .map_err(|error| CodecError::Failed { codec: ID.to_owned(), text: error.to_string() })?;
        Ok((packed.len() < body.len()).then(|| Encoded::new(packed)))
    }

    fn decode(
        &self,
        _about: &About,
        _key: Option<&str>,
        body: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>, CodecError> {
        let damaged = |error: std::io::Error| match error.to_string().contains("too much memory") {
            true => CodecError::TooLarge { limit },
            false => CodecError::Damaged(ID.to_owned()),
        };
        let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(damaged)?;
        // A frame also says how much memory its window takes: 8 MiB is what most encoders
        // ask for, whatever they pack.
        let window = limit.next_power_of_two().trailing_zeros().clamp(23, 27);
        decoder.window_log_max(window).map_err(damaged)?;
        // Nothing that the frame claims is believed: it is read until it ends or is too much.
        let mut whole = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        decoder.take(most).read_to_end(&mut whole).map_err(damaged)?;
        if whole.len() > limit {
            return Err(CodecError::TooLarge { limit });
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use bellows_registry::id::{DefinitionId, TaskId};

    use super::*;

    fn about() -> About {
        About::payload(&DefinitionId::new("default", "act").unwrap(), TaskId::from_bits(1))
    }

    #[test]
    fn what_compresses_is_compressed_and_the_rest_left_as_it_is() {
        let text = "to and fro ".repeat(1000).into_bytes();
        let packed = Zstd::new().encode(&about(), &text).unwrap().unwrap().body;
        assert!(packed.len() < text.len() / 50, "{}", packed.len());
        assert_eq!(Zstd::new().decode(&about(), None, &packed, text.len()).unwrap(), text);
        assert!(Zstd::new().encode(&about(), &text[..WORTH - 1]).unwrap().is_none(), "too small");
        assert!(Zstd::new().encode(&about(), &packed[..]).unwrap().is_none(), "packed already");
    }

    #[test]
    fn a_bomb_is_given_up_at_the_limit() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        assert!(bomb.len() < 8 << 10, "{}", bomb.len());
        let refused = Zstd::new().decode(&about(), None, &bomb, 1 << 20).unwrap_err();
        assert!(matches!(refused, CodecError::TooLarge { limit } if limit == 1 << 20), "{refused}");
    }

    #[test]
    fn damage_is_told_and_nothing_of_the_content() {
        let text = "secret ".repeat(100).into_bytes();
        let mut packed = Zstd::new().encode(&about(), &text).unwrap().unwrap().body;
        packed.truncate(packed.len() - 3);
        for bad in [&packed[..], b"no frame at all", b""] {
            match Zstd::new().decode(&about(), None, bad, 1 << 20) {
                Err(error) => assert_eq!(error.to_string(), "it is damaged: not what codec \"zstd\" makes"),
                Ok(whole) => assert_eq!((bad.len(), whole.len()), (0, 0)),
            }
        }
    }
}
