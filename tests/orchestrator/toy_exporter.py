"""What the toy Count exports; a module of its own, so that a test can see when it is loaded."""


def export_sum(folder, out):
    total = (folder / "sum.txt").read_text()
    out.write_text(f"sum = {total}")
    return f"open({out.name!r}) holds the sum"


class Impostor:
    """Names an exporter, and is no trainable."""

    exporter = "toy_exporter:export_sum"
