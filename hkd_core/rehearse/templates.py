"""Chat templates of the miniatures: the form that each family publishes, in as few words as hold it."""

PARTS = "{% for part in m['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}"

# USER: <image>\nquestion ASSISTANT: answer. No token ends an answer, and the tokenizer adds <s>.
LLAVA = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# [INST] <image>\nquestion [/INST] answer</s>
MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' }}"
    + PARTS.replace("IMAGE", "{{ '<image>\n' }}")
    + "{{ ' [/INST]' }}{% else %}{{ ' ' }}"
    + PARTS.replace("IMAGE", "")
    + "{{ '</s>' }}{% endif %}{% endfor %}"
)
# A space behind the role, but none in the generation prompt.
ONEVISION = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' }}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chatml(image: str, system: str = "") -> str:
    """ChatML: <|im_start|>role\\n...<|im_end|>\\n, with `image` in a picture's place and the system prompt first, if there is one."""
    first = f"{{{{ '<|im_start|>system\n{system}<|im_end|>\n' }}}}" if system else ""
    turn = PARTS.replace("IMAGE", f"{{{{ '{image}' }}}}")
    return (
        first
        + "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        + turn
        + "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


INTERNVL = chatml("<IMG_CONTEXT>\n")
QWEN2 = chatml("<|vision_start|><|image_pad|><|vision_end|>", "You are a helpful assistant.")
QWEN3 = chatml("<|vision_start|><|image_pad|><|vision_end|>")


def idefics(start: str) -> str:
    """`start`, then User:<image>question<end_of_utterance>\\nAssistant: answer<end_of_utterance>\\n."""
    return (
        f"{start}{{% for m in messages %}}{{{{ m['role'] | capitalize }}}}"
        "{% if m['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
        + PARTS.replace("IMAGE", "{{ '<image>' }}")
        + "{{ '<end_of_utterance>\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    )


# <bos> stands in the template although the tokenizer adds it too, the assistant is called model, and white space is trimmed.
GEMMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
