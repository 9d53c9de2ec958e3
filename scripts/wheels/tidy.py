"""Make a native wheel say nothing of the machine that built it: `python scripts/wheels/tidy.py dist/*.whl`.

maturin writes a bill of materials of the Rust crates into the wheel. The crates of this tree are named in it by the
folder in which they lay, so two machines built two wheels. `SOURCE_DATE_EPOCH` keeps the hour and a random serial
number out already. It needs no library, because it also runs where only a wheel was built.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import zipfile
from pathlib import Path

_PLACE = re.compile(rb"path\+file://[^#\"]*/(rust/[\w-]+)(?=[#\"])")
_BILL = ".cyclonedx.json"
_RECORD = ".dist-info/RECORD"


def tidy(wheel: Path) -> None:
    """Name the crates of this tree by their place in it, and put the new digests into the wheel's record."""
    with zipfile.ZipFile(wheel) as archive:
        files = [(info, archive.read(info)) for info in archive.infolist()]
    changed = {}
    for place, (info, data) in enumerate(files):
        if info.filename.endswith(_BILL):
            cleaned = _PLACE.sub(rb"path+file:///\1", data)
            files[place] = (info, cleaned)
            changed[info.filename] = _record_line(info.filename, cleaned)
    written = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(written, "w") as archive:
        for info, data in files:
            content = _with(changed, data) if info.filename.endswith(_RECORD) else data
            archive.writestr(info, content, compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)
    written.replace(wheel)


def _record_line(name: str, data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


def _with(changed: dict[str, str], record: bytes) -> bytes:
    lines = record.decode().splitlines()
    return "".join(f"{changed.get(line.partition(',')[0], line)}\n" for line in lines).encode()


if __name__ == "__main__":
    for named in sys.argv[1:]:
        tidy(Path(named))
