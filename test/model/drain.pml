/* drain.pml - a drain with a grace period: R10, R11, R12, R12a, R13, R20, R21 and DrainGrace.
 *
 * One member M owns the one partition p; a peer P takes p whenever M's Lease does not claim it. M's wish changes at any time (any
 * ring, any view). M has one piece of work at a time, of any length; it may ignore its context. Requests may be late, lost, or commit
 * after M gave them up. M may be fenced, and evicted while it is fenced and its work has stopped (claim.pml has the timing of that).
 *
 *   st    FREE, CLAIMED, ACTIVE, DRAINING, DRAINED                     want  M's ring assigns p to M
 *   fly   work is in flight    cx  its context is cancelled            todo  the item waits in the queue    done  it needs no work
 *   g     the code's count of ticks since the drain began, up to DG    d     ticks since the grace ended, up to DT
 *   age   the true count of ticks since this drain began               rel   release: 0 none, 1 sent, 2 given up, may still commit
 *   clm   M's Lease claims p                                           wr    a claiming write of M is on its way
 *
 * Checked: S1; a drain cancels no work before DG; it ends or gives up within DG + DT; a partition that is active again runs no work
 * that a drain or a fence has cancelled; no item is lost (R21).
 *
 * Mutants: NOGRACE    contexts are cancelled when the drain begins            CANCELLED  R12a although contexts were cancelled
 *          NORESTART  the grace of a second drain counts from the first one   EARLYREL   released with work in flight (R11)
 *          REENTER    active again while a release is on its way (R12, R20)   NOTFREE    FREE only when the release is answered (R13)
 *          ADMIT      work is admitted in any state (R10, R35)                NOREQUEUE  cancelled work is not requeued (R21)
 * R12F is a question, not a mutant: R12 without "not fenced".
 */
#ifndef DG
#define DG 2
#endif
#ifndef DT
#define DT 2
#endif
#ifndef FLIPS
#define FLIPS 6
#endif
mtype = { FREE, CLAIMED, ACTIVE, DRAINING, DRAINED };
mtype st = ACTIVE; bool want=1; bool up=1; bool fence; bool ev;
bool fly; bool cx; bool todo=1; bool done; byte g; byte d; byte age;
byte rel; bool wr; bool clm=1;
bool pclm; bool pact; bool pwork;
byte flips=FLIPS; byte faults=1;

inline ends() { st=FREE; g=0; d=0; age=0; up=0 }             /* the incarnation ends, R5; its work has stopped */
inline drains() { st=DRAINING; age=0;
#ifndef NORESTART
  g=0;
#endif
  d=0 }
inline activate() { printf("M: ACTIVE\n"); assert(!(fly && cx)); st=ACTIVE; d=0; age=0;
#ifndef NORESTART
  g=0
#else
  skip
#endif
}
active proctype M() {
  do
  :: d_step { up && st==ACTIVE && !want -> printf("M: DRAINING\n"); drains();
#ifdef NOGRACE
       if :: fly -> cx=1; assert(age>=DG) :: else fi
#endif
     }
  :: d_step { up && st==DRAINING && g>=DG && fly && !cx -> printf("M: grace over, cancels\n"); assert(age>=DG); cx=1 }
#ifdef EARLYREL
  :: d_step { up && st==DRAINING -> printf("M: DRAINED\n"); st=DRAINED; d=0; age=0 }
#else
  :: d_step { up && st==DRAINING && !fly -> printf("M: DRAINED\n"); st=DRAINED; d=0; age=0 }
#endif
#ifdef CANCELLED
  :: d_step { up && st==DRAINING && want -> activate() }
#else
  :: d_step { up && st==DRAINING && want && !cx -> activate() }                                       /* R12a */
#endif
#ifdef R12F
  :: d_step { up && st==DRAINED && want && rel==0 -> activate() }
#else
  :: d_step { up && st==DRAINED && want && rel==0 && !fence -> activate() }                           /* R12 */
#endif
#ifdef NOTFREE
  :: d_step { up && st==DRAINED && !want && rel==0 && !wr -> printf("M: sends release\n"); rel=1 }
  :: d_step { up && st==DRAINED && want && rel!=0 -> activate() }
  :: d_step { up && st==DRAINED && !clm -> st=FREE }
#else
  :: d_step { up && (st==DRAINED || st==CLAIMED) && !want && rel==0 && !wr -> printf("M: FREE, sends release\n"); st=FREE; rel=1 }   /* R13 */
#endif
#ifdef REENTER
  :: d_step { up && st==FREE && want && rel!=0 && clm -> printf("M: a GET shows the claim\n"); activate() }
#endif
  :: d_step { up && st==FREE && rel==2 && !want -> printf("M: sends the release again\n"); rel=1 }
  :: d_step { up && st==FREE && rel!=1 && want && !wr && !pclm && !fence -> printf("M: sends claim\n"); wr=1 }                       /* R14 */
  :: d_step { up && st==CLAIMED && want && clm && !pclm && !fence -> activate() }                     /* R16 - R18 */
  /* queue and work */
#ifdef ADMIT
  :: d_step { up && !fly && todo && !fence -> printf("M: starts work\n"); assert(!pwork); fly=1; todo=0 }
#else
  :: d_step { up && !fly && todo && !fence && st==ACTIVE -> printf("M: starts work\n"); assert(!pwork); fly=1; todo=0 }               /* R35 */
#endif
  :: d_step { fly -> printf("M: work is done\n"); fly=0; cx=0; done=!todo }
#ifdef NOREQUEUE
  :: d_step { fly && cx -> printf("M: work ends, cancelled\n"); fly=0; cx=0 }
#else
  :: d_step { fly && cx -> printf("M: work ends, cancelled, requeued\n"); fly=0; cx=0; todo=1 }                                       /* R21 */
#endif
  :: d_step { up && st==ACTIVE && !fly && !todo && !done -> printf("an item is lost\n"); assert(0) }
  :: d_step { up && st==DRAINING && fly && d>=DT -> printf("M: drain timeout, exits\n"); fly=0; cx=0; todo=1; ends() }
  od }
active proctype ENV() {
  do
  :: d_step { rel==1 -> printf("api: release commits\n"); if :: !ev -> clm=0 :: else fi; rel=0 }
  :: d_step { rel==1 -> printf("api: release unanswered\n"); rel=2 }
  :: d_step { rel==2 -> printf("api: late release commits\n"); if :: !ev -> clm=0 :: else fi; rel=0; wr=0 }   /* the claim conflicts */
  :: d_step { wr -> wr=0; if :: !ev && up && st==FREE -> printf("api: claim commits\n"); clm=1; rel=0; st=CLAIMED :: else fi }
  :: d_step { wr -> printf("api: claim refused\n"); wr=0 }
  :: d_step { faults>0 && up && !fence -> printf("M: FENCED, contexts cancelled\n"); faults--; fence=1; if :: fly -> cx=1 :: else fi }  /* R36 */
  :: d_step { up && fence && !ev -> printf("M: renews, no longer fenced\n"); fence=0 }
  :: d_step { fence && !ev && !fly -> printf("P: evicts M\n"); ev=1; clm=0 }
  :: d_step { up && fence && ev && !fly -> printf("M: learns that it was evicted\n"); ends() }
  :: d_step { !up && !fly && clm -> printf("P: evicts M\n"); ev=1; clm=0 }
  :: d_step { flips>0 -> flips--; want=!want; printf("ring: M wants p: %d\n",want) }
  :: d_step { flips>0 && done -> flips--; done=0; todo=1; printf("event: the item needs work\n") }
  :: d_step { !pclm && !clm -> printf("P: claims\n"); pclm=1 }
  :: d_step { pclm && !pact && !clm -> printf("P: ACTIVE\n"); pact=1 }
  :: d_step { pact && !pwork -> printf("P: works\n"); assert(!fly); pwork=1 }
  :: d_step { pwork -> pwork=0 }
  :: d_step { pclm && !pwork -> pclm=0; pact=0 }
  /* clock: what is due is not left for the next tick */
  :: d_step { st==DRAINING && !(g>=DG && fly && !cx) && !(fly && d>=DT) && !(!fly) ->
       printf("tick\n"); if :: g>=DG -> d++ :: else -> g++ fi; age++; assert(age<=DG+DT) }
  od }
