/* queues.pml - where tasks wait: the injection queue, and a deque for each worker.
 *
 * The injection queue is its ring. A push has two steps, Claim and Fill, and whoever pops meanwhile
 * sees the queue empty from the claimed cell on. A pop is one step: it ends with a compare-and-swap on
 * the position whose cell it has seen full, and a cell that it sees empty is the first one at that
 * moment. Cells are not used twice here; that they may be is the ring's own proof.
 *
 * The deque is that of native/core/deque.h with its events; here, too, positions have a slot each.
 * Aim, Look and Read are one step: only Take can fail, and it fails if Aim is out of date.
 *
 * Tasks are numbered from 1; 0 is none. The includer defines WORKERS and TASKS. A worker has the locals
 * `aim`, `victim`, `looked` and `offset`.
 */
byte cell[TASKS];
byte claimed, popped;

typedef Deque {
  byte slot[TASKS + 1]; /* positions begin at 1, since a byte has no room below 0 */
  byte bottom = 1;
  byte top = 1;
}
Deque deque[WORKERS];

inline Claim(position) {
  d_step { position = claimed; claimed++ }
}

inline Fill(position, new_task) {
  d_step { cell[position] = new_task; position = 0 }
}

inline InjectionPop(task) {
  d_step {
    if
    :: popped < claimed && cell[popped] != 0 -> task = cell[popped]; cell[popped] = 0; popped++;
    :: else -> task = 0;
    fi
  }
}

/* By the owner. The caller has seen that there is room. */
inline DequePush(me, new_task) {
  d_step { deque[me].slot[deque[me].bottom] = new_task; deque[me].bottom++ }
}

/* By the owner: the newest. */
inline DequePop(me, task) {
  if
  :: deque[me].top >= deque[me].bottom -> task = 0
  :: else ->
     deque[me].bottom--; /* Reserve */
     d_step {            /* Look, then Take or Restore */
       if
       :: deque[me].top < deque[me].bottom -> task = deque[me].slot[deque[me].bottom];
       :: deque[me].top == deque[me].bottom ->
          task = deque[me].slot[deque[me].bottom];
          deque[me].top++;
          deque[me].bottom++;
       :: else -> task = 0; deque[me].bottom++;
       fi
     }
  fi
}

/* By a thief: the oldest. */
inline Steal(victim, task) {
  do
  :: d_step { /* Aim, Look, Read */
       deque[victim].top < deque[victim].bottom ->
       aim = deque[victim].top;
       task = deque[victim].slot[aim];
     }
     if
     :: d_step { deque[victim].top == aim -> deque[victim].top++; aim = 0 } /* Take */
        break
     :: else -> aim = 0; task = 0 /* another one was faster */
#ifdef MUTANT_LOST_RACE_IS_EMPTY
        break
#endif
     fi
  :: else -> task = 0; break
  od
}

/* The deques of the others, from any one on. */
inline StealFromAny(me, task) {
  looked = 0;
  if
  :: offset = 0
#if WORKERS > 2
  :: offset = 1
#endif
  fi;
  do
  :: looked < WORKERS - 1 && task == 0 ->
     victim = (me + 1 + (offset + looked) % (WORKERS - 1)) % WORKERS;
     Steal(victim, task);
     looked++
  :: else -> break
  od;
  atomic { looked = 0; offset = 0; victim = 0 }
}

/* One's own deque and the injection queue, then the deques of the others. */
inline Find(me, task) {
#ifndef MUTANT_OWN_DEQUE_FORGOTTEN
  DequePop(me, task);
#endif
  if
  :: task == 0 -> InjectionPop(task)
  :: else
  fi;
  if
  :: task == 0 -> StealFromAny(me, task)
  :: else
  fi
}

/* Whether a queue is not empty, by its positions: a cell that is claimed counts. */
inline LookAtQueues(visible) {
  visible = (claimed > popped);
  looked = 0;
  do
  :: looked < WORKERS && !visible ->
     visible = (deque[looked].top < deque[looked].bottom);
     looked++
  :: else -> break
  od;
  looked = 0
}
