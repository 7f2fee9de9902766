"""Tar files as others make them, and broken ones."""

import io
import tarfile


def tar(members, **options):
    """The bytes of a tar file: {name: content}, or TarInfo with content as pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
