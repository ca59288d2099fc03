#!/bin/sh
# Runs the night of a date, yesterday's without one, and turns its exit code into what a scheduler understands:
#   0   done, or held: the live version stays, the night's page says why; 10 and 11 are everyday verdicts
#   75  try again later (EX_TEMPFAIL): the store is down, another night has the lock, the machine gave out
#   else somebody has to look: run again, it would end the same way
set -u
: "${RECSYS_CONFIG:?the run's TOML file}" "${RECSYS_LOG:?the interaction log}" "${RECSYS_RUNS:?the runs folder}"
date="${1:-$(date -d yesterday +%F)}"

recsys nightly --config "$RECSYS_CONFIG" --log "$RECSYS_LOG" --runs "$RECSYS_RUNS" --date "$date"
code=$?
case $code in
0) ;;
10 | 11) echo "night of $date: held, see $RECSYS_RUNS/reports/night-$date.html" >&2; code=0 ;;
2 | 3 | 4 | 14 | 15) echo "night of $date: somebody has to look (exit code $code)" >&2 ;;
*) echo "night of $date: to be tried again (exit code $code)" >&2; code=75 ;;
esac
exit $code
