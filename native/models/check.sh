#!/usr/bin/env bash
# Checks the models exhaustively, and that the checker rejects each of their mutants. See README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."

failures=0
running=0

# Everything that a run leaves is in build/models/NAME. Sets `output` and `states`.
search() { # NAME MODEL MACRO...
  local folder=build/models/$1 model=$PWD/native/models/$2.pml
  local compile="-DSAFETY" run="" optimise=-O2
  case " $* " in *" -DLIVENESS "*) compile="-DNFAIR=3" run="-a -f" ;; esac
  # A mutant is found in less time than gcc needs to make its search fast.
  case " $* " in *" -DMUTANT_"*) optimise=-O0 ;; esac
  rm -rf "$folder"
  mkdir -p "$folder"
  (
    cd "$folder"
    spin -a "${@:3}" "$model" >spin.txt || { cat spin.txt && exit 1; }
    gcc $optimise -w -DCOLLAPSE -DMEMLIM=4000 $compile -o pan pan.c
    ./pan -m100000 $run >pan.txt 2>&1 || true # its verdict is in what it prints
  )
  output=$folder/pan.txt
  states=$(sed -n 's/^ *\([^ ]*\) states, stored.*/\1/p' "$output")
}

report() { # VERDICT NAME
  printf '%-26s %-36s %11s states\n' "$1" "$2" "${states:-?}"
}

complain() { # VERDICT NAME
  report "$@"
  cat "$output"
  return 1
}

# As many at once as there are processors.
start() { # COMMAND ARGUMENT...
  if [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; then
    await_one
  fi
  "$@" &
  running=$((running + 1))
}

await_one() {
  wait -n || failures=$((failures + 1))
  running=$((running - 1))
}

check_holds() { # NAME MODEL MACRO...
  search "$@"
  if grep -q 'errors: 0$' "$output" &&
    ! grep -qi 'search not completed\|depth too small\|out of memory\|memory limit' "$output"; then
    report "holds" "$1"
  else
    complain "DOES NOT HOLD" "$1"
  fi
}

check_rejected() { # MODEL MUTANT MACRO...
  search "$1-$2" "$1" "-DMUTANT_$2" "${@:3}"
  if grep -q 'errors: 1$' "$output"; then
    report "rejected, as it must be" "$1-$2"
  else
    complain "NOT REJECTED" "$1-$2"
  fi
}

holds() { # NAME MODEL MACRO...
  start check_holds "$@"
}

rejected() { # MODEL MUTANT MACRO...
  start check_rejected "$@"
}

ring="-DWORKERS=2 -DPRODUCERS=2 -DCHILDREN=2 -DSPURIOUS_WAKES=1"

holds park park
holds park-ring park $ring
holds park-live park $ring -DLIVENESS
holds park-children park -DWORKERS=3 -DPRODUCERS=1 -DCHILDREN=3 -DSPURIOUS_WAKES=0
holds park-large park -DWORKERS=3 -DPRODUCERS=2 -DCHILDREN=1 -DSPURIOUS_WAKES=0
rejected park NO_RECHECK
rejected park NOTIFY_BEFORE_PUBLISH
rejected park NOTIFY_ONLY_THE_FIRST $ring
rejected park FOUND_WITHOUT_LOOK
rejected park RETRACT_TAKES_A_SLEEPER
rejected park ANNOUNCE_IN_TWO_STEPS
rejected park SLEEP_WITHOUT_COMPARE
rejected park SEARCH_WITHOUT_BOUND
rejected park LOST_RACE_IS_EMPTY

calls="-DWORKERS=2 -DPRODUCERS=1 -DCHILDREN=1 -DSPURIOUS_WAKES=0 -DCALLERS=1 -DDEADLINES=0"
deadlines="-DWORKERS=2 -DPRODUCERS=1 -DCHILDREN=0 -DSPURIOUS_WAKES=0 -DCALLERS=1 -DDEADLINES=1"

holds park-calls park $calls
holds park-deadlines park $deadlines
rejected park CALL_WITHOUT_COUNT $calls
rejected park CALL_WAKES_ANY $calls
rejected park CALL_LOOKS_AT_SLEEPERS $calls
rejected park CALL_BEFORE_PUSH $calls
rejected park CALL_BEFORE_PERMIT $calls

holds port port
rejected port TAKE_BEFORE_CLEAR
rejected port CLEAR_BEFORE_READ
rejected port SIGNAL_BEFORE_PUSH
rejected port PUSH_IN_TWO_STEPS
rejected port PUSH_WHEN_CLOSED

holds close close
holds close-submitters close -DWORKERS=2 -DSUBMITTERS=2 -DCHILDREN=1 -DSPURIOUS_WAKES=0
rejected close CLOSED_WITH_SOMEBODY_INSIDE
rejected close DRAINED_BEFORE_CLOSED
rejected close GATE_BEFORE_ANNOUNCE
rejected close NO_WAKING_AT_EXIT
rejected close WAKING_BEFORE_CLOSE
rejected close ENTER_IN_TWO_STEPS
rejected close EXIT_BEFORE_PUBLISH
rejected close OWN_DEQUE_FORGOTTEN
rejected close LEAVE_IN_TWO_STEPS

holds monitor monitor
rejected monitor NO_RECHECK
rejected monitor RECHECK_BEFORE_DISARM
rejected monitor ARM_BEFORE_PUBLISH
rejected monitor ARM_BY_PRODUCERS_ALONE

holds room room
rejected room LOOK_TWICE
rejected room SLEEP_WITHOUT_COMPARE
rejected room MOVE_WITHOUT_WAKE
rejected room REMOVE_WITHOUT_WAKE
rejected room GIVE_UP_WITHOUT_ASKING

again="-DFIBERS=1 -DROUNDS=2"

holds green green
holds green-again green $again
rejected green PARK_WITHOUT_COMPARE $again
rejected green SET_WITHOUT_COMPARE $again
rejected green TIMER_WITHOUT_COMPARE $again
rejected green FIBER_AFTER_PARKED $again
rejected green LOSER_PUSHES $again
rejected green LEAVE_WITHOUT_LOCK $again
rejected green TIMER_IS_KEPT $again

visitor="-DWORKERS=1 -DCALLS=1 -DINTERRUPTERS=1 -DVISITS=0 -DLIVENESS"

holds interrupt interrupt
holds interrupt-workers interrupt -DWORKERS=2 -DCALLS=2 -DINTERRUPTERS=2 -DVISITS=1
holds interrupt-live interrupt $visitor
rejected interrupt END_WITHOUT_CLEARING
rejected interrupt END_CLEARS_FIRST
rejected interrupt INTERRUPT_WITHOUT_LOOK
rejected interrupt INTERRUPT_IN_TWO_STEPS
rejected interrupt INTERRUPT_DURING_VISIT
rejected interrupt INTERRUPT_TOO_EARLY
rejected interrupt BEGIN_IN_TWO_STEPS
rejected interrupt VISIT_IGNORES_SET
rejected interrupt VISIT_IGNORES_DEFERRED $visitor
rejected interrupt VISIT_IGNORES_ABANDON
rejected interrupt LEAVE_FORGETS_DEFERRED
rejected interrupt LEAVE_WITHOUT_LOOK
rejected interrupt ABANDON_DURING_VISIT

while [ "$running" -gt 0 ]; do
  await_one
done
exit $((failures > 0))
