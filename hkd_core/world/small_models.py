"""The laptop's vision-language models: real LLaVA classes, only small, with a real processor."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hkd_core.models.attention import PLAIN
from hkd_core.world.objects import CELL, SIDE
from hkd_core.world.vocabulary import BOS, EOS, IMAGE, PAD, UNKNOWN, vocabulary

# The prompt stands right after the picture and the answer right after the prompt, as in LLaVA's templates.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %} {{ eos_token }}{% endif %}{% endfor %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One word, one token; words outside the vocabulary become <unk>."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary())}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": IMAGE},
        model_input_names=["input_ids", "attention_mask"],
    )


def build_processor() -> LlavaProcessor:
    """Pictures of any size are brought to SIDE x SIDE; the tokenizer is the world's."""
    size = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size=size, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    return LlavaProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(),
        patch_size=CELL,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def vision_config(width: int, layers: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 32, 2),
        image_size=SIDE,
        patch_size=CELL,
        hidden_act="gelu",
    )


def text_config(width: int, layers: int, tokens: int) -> LlamaConfig:
    """Many narrow heads and slow rotary frequencies: words find their like by content, at whatever distance (our choice)."""
    heads = width // 16
    return LlamaConfig(
        vocab_size=tokens,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def build_model(vision: CLIPVisionConfig, width: int, layers: int) -> LlavaForConditionalGeneration:
    """An untrained model around a vision tower of that shape; its attention is that of attention.py."""
    words = vocabulary()
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_config(width, layers, len(words)),
        image_token_index=words.index(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(SIDE // CELL) ** 2,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.set_attn_implementation(PLAIN)
    return model
