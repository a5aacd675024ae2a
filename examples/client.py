"""Sends a photo and a user id to a running service, and prints the items with their reasons.

python examples/client.py PHOTO USER [URL]
"""

import sys
from pathlib import Path

import httpx


def main(photo: str, user: str, url: str = "http://127.0.0.1:3000") -> None:
    files = {"image": Path(photo).read_bytes()}
    response = httpx.post(f"{url}/recommend", files=files, data={"user_id": user, "k": 5}, timeout=10)
    answer = response.json()
    if response.is_error:  # application/problem+json: `detail` says what was expected and what to do
        sys.exit(f"{response.status_code}: {answer['detail']}")
    print(f"release {answer['release']}, tier {answer['tier']}")
    for item in answer["items"]:
        terms = ", ".join(f"{name} {value:+.2f}" for name, value in item["terms"].items())
        because = ", ".join(item["because"])
        print(f"{item['item_id']}  {item['score']:.2f}  {item['title']}  ({terms})  because {because}")


if __name__ == "__main__":
    main(*sys.argv[1:])
