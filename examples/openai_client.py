"""OpenAI's own library against an agent: final text alone, for programs that speak that API already (`pip install openai`).

python examples/openai_client.py [URL] [--key-file FILE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from openai import OpenAI

QUESTION = "The module provides"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
    parser.add_argument("--key-file", type=Path, help="for an agent that has keys")
    given = parser.parse_args()
    try:
        key = given.key_file.read_text().strip() if given.key_file else "none is asked for"
    except (OSError, UnicodeError) as error:
        sys.exit(f"{given.key_file} cannot be read: {error}")

    with OpenAI(base_url=f"{given.url.rstrip('/')}/v1", api_key=key) as client:
        model = client.models.list().data[0].id
        print(f"model: {model}")
        whole = client.completions.create(model=model, prompt=QUESTION, max_tokens=16, temperature=0.8, seed=7)
        print(f"whole: {whole.choices[0].text!r}")
        pieces = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=16, temperature=0.8, seed=7, stream=True
        )
        streamed = [chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices]
        print(f"in {len([piece for piece in streamed if piece])} pieces: {''.join(streamed)!r}")


if __name__ == "__main__":
    main()
