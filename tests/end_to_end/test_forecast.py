"""A run forecasts the disk that its checkpoints take, to the per cent."""

import re

from virtex.checkpoints.file import checkpoints


def test_the_forecast_is_the_size_of_the_checkpoints(scenes, run, capsys):
    override = ("OPTIM.NUM_ITERATIONS", 24)
    assert scenes.pretrain(run, "--checkpoint-every", 9, "--keep-recent", 2, override=override) == 0
    output = capsys.readouterr().out
    (found,) = re.findall(r"there are ([0-9,]+) checkpoints of ([0-9,]+) MB, ([0-9.]+) GB", output)
    count, megabytes, gigabytes = (float(text.replace(",", "")) for text in found)
    sizes = [path.stat().st_size for path in checkpoints(run)]
    assert count == len(sizes) == 2
    assert abs(megabytes - sizes[0] / 1e6) < 1
    assert abs(gigabytes - sum(sizes) / 1e9) < 0.01
    assert len(re.findall(r"remaining 4 iterations take about 0:00:0\d", output)) == 1
