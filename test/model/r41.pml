/* r41.pml - R41: no fence while the API server answers every request, slowly. Discrete clock, 1 tick = 0.5 s: RD 18, RP 6.
 *
 * One member renews. Each request is answered at any time up to LAT ticks after its send, and takes effect at any time before its
 * answer. Rules: a write that is unanswered after RP gets one quorum GET alongside it; a write is given up RD/2 after its send; after
 * that a GET must show the current version; the next write goes out when one of the two has confirmed the last one, RP after its send.
 *
 *   w   0 no write, 1 sent, 2 committed, unanswered     wa  ticks since its send      z   a given-up write is still on its way
 *   q   0 no GET, 1 sent, 2 served                      qa  ticks since its send      qt  what the served GET confirms, as a fence
 *   read  a GET was sent alongside the write
 *   F   ticks until the fence       T  the same for the write that the Lease shows    kv  the version is known
 *
 * Checked: F never gets to 0.   LOST: the answer of every write is lost, its effect is not (R40 confirms it).
 * Mutants: FIXED  a write is given up after RP, without a GET alongside (the rule before R41)
 *          WAIT   a write is never given up before its fence and has no GET alongside (with LOST)
 */
#define RD 18
#define RP 6
#ifndef LAT
#define LAT 8
#endif
#if defined(FIXED)
#define TO RP
#define HEDGE 99
#elif defined(WAIT)
#define TO RD
#define HEDGE 99
#else
#define TO 9
#define HEDGE RP
#endif
#ifdef LOST
#define ANSWERED 0
#else
#define ANSWERED (w==2 && wa>=LAT)
#endif
#define READDUE (q==0 && (w>0 && wa>=HEDGE && wa<TO && !read || w==0 && !kv))
#define DUE (w==0 && kv && wa>=RP || w==1 && wa>=LAT || ANSWERED || z>0 && za>=LAT || w>0 && wa>=TO || READDUE || q>0 && qa>=LAT)
#define DEC(x) x=(x>0->x-1:0)
byte w; byte wa=RP; byte q; byte qa; byte qt; bool qlast; byte F=RD-RP; byte T; bool kv=1; byte z; byte zt; byte za; bool read;
active proctype P() {
  do
  :: d_step { w==0 && kv && wa>=RP -> printf("send write\n"); w=1; wa=0; kv=0; read=0 }
  :: d_step { w==1 -> printf("write commits\n"); w=2; T=RD-wa; z=0 }
#ifdef LOST
  :: d_step { z>0 -> printf("late write commits\n"); T=zt; z=0 }
#else
  :: d_step { w==2 && wa<=LAT -> printf("write answered after %d\n",wa); w=0; kv=1; q=0; if :: RD-wa>F -> F=RD-wa :: else fi }
  :: d_step { z>0 -> printf("late write commits\n"); T=zt; z=0; kv=0 }
#endif
  :: d_step { w>0 && wa>=TO -> printf("write given up\n"); if :: w==1 -> z=1; zt=RD-wa; za=wa :: else fi; w=0; kv=0; q=0 }
  :: d_step { READDUE -> printf("send GET\n"); q=1; qa=0; read=(w>0) }
  :: d_step { q==1 -> printf("GET served, shows %d\n",T); q=2; qt=T; qlast=(w==2) }
  :: d_step { q==2 -> printf("GET answered after %d, confirms %d\n",qa,qt); q=0; if :: qt>F -> F=qt :: else fi; qt=0;
       if :: w==0 -> kv=1 :: w>0 && qlast -> w=0; kv=1 :: else fi; qlast=0 }
  /* clock */
  :: d_step { !DUE ->
       printf("tick\n"); if :: wa<30 -> wa++ :: else fi; if :: q>0 -> qa++ :: else fi; DEC(F); DEC(T); DEC(qt); DEC(zt);
       if :: z>0 -> za++ :: else fi; assert(F>0) }
  od }
