"""Small tokenizers of the two kinds that families use, trained offline on a few sentences; every text can be written in them."""

from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

WORDS = (
    "Is there a dog in the image? Is there a red cup on the table? Yes, there is. No, there is not. Describe the image. "
    "Please describe this image in detail. The image shows a cat, two chairs, a blue car and a tree under the sky. "
    "Answer the question using a single word or phrase. Options: A. dog B. cup C. cat D. car. What colour is the cup? "
    "USER: ASSISTANT: User: Assistant: user assistant model system You are a helpful assistant. [INST] [/INST] "
)
SIZE = 420  # tokens before the special ones


def bytes_like(special: Sequence[str]) -> Tokenizer:
    """Byte-level BPE (Qwen, Llama 3, SmolLM): spaces belong to words, and no token is unknown."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    found.train_from_iterator([WORDS], trainers.BpeTrainer(vocab_size=SIZE, initial_alphabet=alphabet, show_progress=False))
    return with_special(found, special)


def pieces_like(special: Sequence[str], *, leading: bool) -> Tokenizer:
    """SentencePiece's BPE with bytes to fall back on (Llama 2, Mistral, Gemma). leading: a space is put before a text."""
    found = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    spaces = [normalizers.Prepend("▁")] * leading + [normalizers.Replace(" ", "▁")]
    found.normalizer = normalizers.Sequence(spaces)
    found.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *[decoders.Strip(" ", 1, 0)] * leading]
    )
    first = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=SIZE + 128, special_tokens=first, show_progress=False)
    found.train_from_iterator(WORDS.split(), trainer)
    return with_special(found, special)


def with_special(tokenizer: Tokenizer, special: Sequence[str]) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def build(
    kind: str, special: Sequence[str], *, bos: str | None, eos: str, pad: str, named: Mapping[str, str] | None = None, adds_bos: bool = False
) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind ("bytes", "pieces" or "llama") with a family's special tokens.

    named: attribute -> token, for the processor. adds_bos: the tokenizer puts its BOS first, as Llama's and Gemma's do.
    """
    found = bytes_like(special) if kind == "bytes" else pieces_like(special, leading=kind == "llama")
    if adds_bos:
        ids = [(bos, found.token_to_id(bos))]
        found.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=ids)
    more = {"extra_special_tokens": dict(named)} if named else {}
    return PreTrainedTokenizerFast(tokenizer_object=found, bos_token=bos, eos_token=eos, pad_token=pad, **more)
