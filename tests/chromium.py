"""Prints where playwright has put its Chromium: for `make browser`."""

from playwright.sync_api import sync_playwright

if __name__ == "__main__":
    with sync_playwright() as playwright:
        print(playwright.chromium.executable_path)  # noqa: T201  it is what the caller reads
