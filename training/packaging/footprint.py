"""`python -m training.packaging.footprint RELEASE`: the bytes of a process that opened and proved a release."""

import sys
from pathlib import Path

from service.recommender.golden import prove
from service.recommender.pipeline import Recommender
from service.recommender.release import Release
from service.settings import Settings

if __name__ == "__main__":
    prove(Recommender(Release.open(sys.argv[1]), user_key=Settings.read().user_key))
    # getrusage would count what the parent held when it began this process
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) * 1024)
