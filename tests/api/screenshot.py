"""Takes the README's picture of `/status`: python -m tests.api.screenshot URL docs/status.png."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.api.browser import chromium, set_size, shown


def main(url: str, file: Path) -> None:
    with TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        set_size(browser, 900)
        browser.get(f"{url}/status")
        shown(browser, "Live.", "RUNNING", "COMPLETED", "slots busy")
        set_size(browser, 900, browser.execute_script("return document.body.scrollHeight"))
        browser.save_screenshot(str(file))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
