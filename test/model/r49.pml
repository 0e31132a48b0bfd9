/* r49.pml - R49, with R29, R31 and R43; and R46 and R18 for newcomers. Derived from r29.pml.
 *
 * H is a holder that runs the claim protocol for the one partition p. K1 .. K(NK), 2 or 3, are observers that leave and join. An observer
 * never holds p: checked is that, whenever its rules allow it to activate p, H cannot work, neither now nor on what it has already sent.
 *
 *   hl, hclm   H's Lease: state, claims p      F, S   H's ticks until the fence: confirmed, and if the outstanding write is confirmed
 *   dirty[k]   H's Lease has changed since what k's watch has shown            sd[k]  and H itself has written since then
 *   st[k]      what k knows of H: 0 nothing, 1 held, 2 tombstone, 3 void       O[k]   ticks left     cc[k]  it claims p, or everything
 *   A join is two steps: CREATE, an empty record in phase joining (up, kl), and later the first list (ls).
 *   mark k     the version of k's first list. pend[j] bit k: H changed before mark k and j's watch has not shown it, so that j's `watched`
 *              is below mark k. Otherwise j's watch may have passed mark k, even if H changed after it.
 *   record     of j, as last written: pub, pcl the tombstone, pw bit k `watched` is at least mark k, ps settled. It survives j's crash or
 *              release until the Lease is evicted or deleted, at any time.
 *   kn[k]      k is settled: it has read a settled record with pw bit k, and adopted; or LD has passed since its first list (QT)
 *
 * Mutants: BYCREATE   the bound is the version of the CREATE        UNSETTLED  the record of a member that is not settled suffices
 *          NOADOPT    tombstones are not adopted                    NOTBL      LD counts from the CREATE      NOWAIT  no wait at all
 *          R43LAST, LISTSEEN, LISTCLAIMS as in r29.pml; LD=RD
 *          SYNCST     what k knows comes from a later list than the bound; with SYNCBOUND, the bound does, too (holds)
 * COLD2: a cold start. If the first list shows no active or draining Lease, k waits for a record of each joining member that it listed,
 *   `cold` (co) or settled, with `watched` at least its first list; adopts the tombstones of each; and is settled. A Lease that has gone
 *   meanwhile is not waited for. Mutants: COLD  joining members are not waited for; COLDJ  one of them keeps k from a cold start.
 *   EXC: a cold start that no live, listed member with H in its picture could have prevented is excused (section 5).
 * LDH, RDH: H declares a longer duration than the observers. PUBLD: each record publishes the largest duration that its member knows, its
 *   tombstones included, and a newcomer also what the records of its first list publish, until it is settled; a newcomer waits for the
 *   largest that its first list shows. Mutant LISTEDLD: only durations that holders in the list declare.
 * EDITLD: R46, the duration on H's Lease is edited. A member that has seen none that H declared counts the cap. Mutant UNKNOWN=LD: its own.
 * OWNCLAIM: R18 as the specification words it. K claims (kc), b4: the watch has not come to that claim, sh, sl what it will then show of H;
 *   kq the list after it: 1 H is missing, 2 its Lease shows no claim. H, too, lists after its claim (hq). Mutants: OWNLAG, NOR31, NOLOOK.
 * NEWH: H's Lease is created after the observers have started. CATCHUP: R18, an activation waits until the watch has come to the version
 *   of the activation list. Mutant: without. GAP: a relist shows neither the creation nor the deletion (section 5).
 * VOIDREL: H voids its Lease when it has drained; the void Lease is deleted LD later (EARLY: at any time). BLK: the watch lags by at most
 *   WL ticks, and no relist may turn a voided and deleted Lease into a tombstone (R39, R43).
 * HMIN: H starts active and only renews. JM: at most JM joins. NOREJ: the founder 1 never leaves. REFRESH, ATJOIN as in r29.pml. */
#ifndef LD
#define LD 4
#endif
#ifndef RD
#define RD 3
#endif
#ifndef LDH      /* the duration that counts for H (R46); the observers declare LD */
#define LDH LD
#endif
#ifndef RDH
#define RDH RD
#endif
#if defined(PUBLD)     /* each record also publishes the largest duration that its member knows of */
#define SHOWNLD(j) (kl[j] && pl[j])
#define WAITLD (VIS || SHOWNLD(1) || SHOWNLD(2) || SHOWNLD(3) -> LDH : LD)
#elif defined(LISTEDLD)  /* a newcomer waits for the largest duration among its own and those of its first list */
#define WAITLD (VIS->LDH:LD)
#else
#define WAITLD LDH
#endif
#ifdef CATCHUP   /* activation waits until the watch has come to the version of the activation list */
#define CAUGHT(k) (!dirty[k])
#else
#define CAUGHT(k) (1)
#endif
#ifndef NK
#define NK 2
#endif
#ifndef WL
#define WL 1
#endif
#define ABS 0
#define HELD 1
#define VOID 2
#define GONE 3
#define DEC(x) x=(x>0->x-1:0)
#define BIT(k) (1<<(k))
byte hl=HELD; bool hclm;
bool hup=1; byte F; byte S; byte rq; bool rqc; bool rqok; bool kv=1; bool mine; bool act; bool cs;
bool up[4]; bool ls[4]; bool kl[4]; byte st[4]; byte O[4]; bool cc[4]; bool dirty[4]; bool sd[4]; byte pub[4]; bool pcl[4];
bool kn[4]; byte QT[4]; byte pend[4]; byte pw[4]; bool ps[4]; byte mk;
#if defined(COLD) || defined(COLDJ) || defined(COLD2)
bool pa[4]; bool cold;
#ifdef COLD2
bool co[4]; bool pco[4]; byte wj[4];
#endif
#define PA(k,v) pa[k]=v
#else
#define PA(k,v) skip
#endif
#ifdef VOIDREL
byte VA;
#ifdef BLK
byte lag[4];
#endif
#endif
#ifdef SYNCST
bool sy[4];
#define SYNCED(k) (sy[k])
#else
#define SYNCED(k) (1)
#endif
byte jj; byte j2;
#ifdef EDITLD   /* R46: the duration on H's Lease is edited, its checksum is wrong; kd[k]: k has seen a duration that H declared */
bool hed; bool kd[4];
#ifndef UNKNOWN /* what counts for a holder that has declared none to k: the cap (1 h). Mutant: k's own duration */
#define UNKNOWN (LDH+1)
#endif
#define DUR(k) (kd[k]->LDH:UNKNOWN)
#define ED hed
#define KD(k) if :: !hed -> kd[k]=1 :: else fi
#else
#define DUR(k) LDH
#define ED 0
#define KD(k) skip
#endif
#ifdef PUBLD
bool pl[4]; bool wl[4];    /* published by the record of k; shown by its first list */
#define KNOWSH(k) (st[k]==1 || st[k]==2 && O[k]>0)
#define PL(k,v) pl[k]=v
#else
#define PL(k,v) skip
#endif
#ifdef NEWH
bool hnew;
#endif
#ifdef OWNCLAIM
bool kc[4]; bool b4[4]; bool sh[4]; bool sl[4]; byte kq[4]; bool hq;
#define B4(k) b4[k]=0
#define HMAYACT (hq)
#define CLAIMED(j) (j<=NK && kl[j] && kc[j])
 #ifdef OWNLAG
 #define ATLIST(k) (kc[k] && kq[k]>0)
 #else
 #define ATLIST(k) (kc[k] && kq[k]>0 && !b4[k])
 #endif
 #ifdef NOR31
 #define INLIST(k) (1)
 #else
 #define INLIST(k) (!(kq[k]==1 && st[k]==1))
 #endif
#else
#define B4(k) skip
#define HMAYACT (1)
#define ATLIST(k) (!(VIS && (ED || hclm)))
#define INLIST(k) (!(MISS && st[k]==1))
#endif
bool go;
#ifdef JM
byte joins;
#define JOINOK (joins<JM)
#define JOINED joins++;
#else
#define JOINOK (1)
#define JOINED
#endif
#ifdef EXC
#define KNOWS(j,k) (j!=k && j<=NK && up[j] && ls[j] && (st[j]==1 || st[j]==2 && O[j]>0))
#define EXCOK(k) (!(CANWORK) || hl!=ABS || KNOWS(1,k) || KNOWS(2,k) || KNOWS(3,k))
#else
#define EXCOK(k) (1)
#endif
#ifdef EDITLD
#define UNEDIT hed=0
#else
#define UNEDIT skip
#endif
#define VIS (hl==HELD)
#define MISS (hl==ABS || hl==GONE)
#define LATE (cs && F==0)
#define CANWORK (act && (F>0 || (rq==2 && S>0)) || cs)
inline touch(own) { jj=1; do :: jj<=NK -> if :: ls[jj] && SYNCED(jj) -> dirty[jj]=1; sd[jj]=(own->1:sd[jj]) :: else fi; jj++ :: else -> break od; jj=0 }
#ifdef OWNCLAIM
#define HQ0 hq=0
#else
#define HQ0 skip
#endif
inline hdie() { HQ0; hup=0; F=0; S=0; rq=0; rqc=0; rqok=0; kv=0; mine=0; act=0; cs=0 }
inline tomb(k,listed) {
   st[k]=2;
#ifdef R43LAST
   if :: listed -> O[k]=DUR(k) :: else fi;
#else
 #ifdef LISTSEEN
   if :: !listed && sd[k] -> O[k]=DUR(k) :: else fi;
 #else
   if :: listed || sd[k] -> O[k]=DUR(k) :: else fi;
 #endif
#endif
   if :: listed ->
#ifdef LISTCLAIMS
       skip
#else
       cc[k]=1
#endif
      :: else -> cc[k]=hclm fi;
   dirty[k]=0; B4(k); sd[k]=0; pend[k]=0;
   if :: O[k]==0 -> st[k]=0; cc[k]=0 :: else fi }
inline obs(k) { if :: VIS -> KD(k); st[k]=1; cc[k]=(ED || hclm); if :: sd[k] || O[k]==0 -> O[k]=DUR(k) :: else fi :: else -> st[k]=3; cc[k]=0; O[k]=0 fi; dirty[k]=0; B4(k); sd[k]=0; pend[k]=0 }
inline adopt(k,j) {
   if :: pub[j]>0 && st[k]!=1 && st[k]!=3 ->
        if :: st[k]==0 || O[k]>pub[j] -> O[k]=pub[j] :: else fi;
        st[k]=2; cc[k]=pcl[j]
      :: else fi }
inline unmark(k) { mk=mk & (255-BIT(k)); j2=1; do :: j2<=NK -> pend[j2]=pend[j2] & (255-BIT(k)); pw[j2]=pw[j2] & (255-BIT(k)); j2++ :: else -> break od; j2=0 }
inline mark(k) { unmark(k); mk=mk | BIT(k); jj=1; do :: jj<=NK -> if :: jj!=k && up[jj] && ls[jj] && dirty[jj] -> pend[jj]=pend[jj] | BIT(k) :: else fi; jj++ :: else -> break od; jj=0 }
#ifdef COLD2
#define CO0(k) pco[k]=0
#else
#define CO0(k) skip
#endif
inline norec(k) { kl[k]=0; PL(k,0); CO0(k); pub[k]=0; pcl[k]=0; ps[k]=0; pw[k]=0; PA(k,0) }
inline kwipe(k) {
#ifdef COLD2
   co[k]=0; wj[k]=0;
#endif
   up[k]=0; ls[k]=0; st[k]=0;
#ifdef EDITLD
   kd[k]=0;
#endif
#ifdef PUBLD
   wl[k]=0;
#endif
   O[k]=0; cc[k]=0; dirty[k]=0; B4(k); sd[k]=0; kn[k]=0; QT[k]=0; pend[k]=0; unmark(k);
#ifdef SYNCST
   sy[k]=0;
#endif
#if defined(VOIDREL) && defined(BLK)
   lag[k]=0;
#endif
}
#ifdef COLD2
#define WJ0(k) wj[k]=0
#else
#define WJ0(k) skip
#endif
inline settle(k) { kn[k]=1; QT[k]=0; WJ0(k); unmark(k) }
inline look(k) { if :: VIS -> KD(k); st[k]=1; cc[k]=(ED || hclm); O[k]=DUR(k) :: hl==VOID -> st[k]=3; cc[k]=0; O[k]=0 :: else -> st[k]=0; cc[k]=0; O[k]=0 fi; dirty[k]=0; B4(k); sd[k]=0; pend[k]=0 }
#ifdef UNSETTLED
#define PS(j) (1)
#else
#define PS(j) (ps[j])
#endif
#define CANREAD(k,j) (k!=j && j<=NK && kl[j] && PS(j) && (pw[j] & BIT(k)))
#ifdef NOADOPT
#define ADOPT(k,j) skip
#else
#define ADOPT(k,j) adopt(k,j)
#endif
#define L(k) (up[k] && ls[k] && SYNCED(k))
#define READ(k,j) :: d_step { L(k) && !kn[k] && CANREAD(k,j) -> ADOPT(k,j); printf("K%d: reads K%d's record (tombstone %d): settled, left=%d\n",k,j,pub[j],O[k]); settle(k) }
#define CREAD(k,j) :: d_step { k!=j && L(k) && !kn[k] && co[k] && (wj[k] & BIT(j)) && (!kl[j] || (pw[j] & BIT(k)) && (pco[j] || ps[j])) -> if :: kl[j] -> adopt(k,j); printf("K%d: reads K%d's cold record, left=%d\n",k,j,O[k]) :: else fi; wj[k]=wj[k] & (255-BIT(j)) }
#define REFR(k,j) :: d_step { k!=j && L(k) && st[k]==2 && pub[j]>0 && pub[j]<O[k] -> adopt(k,j) }
proctype K(byte k) {
  do
  :: d_step { L(k) && dirty[k] && (VIS || hl==VOID) -> printf("K%d: watch: H lst=%d clm=%d new=%d\n",k,hl,hclm,sd[k]); obs(k) }
  :: d_step { L(k) && dirty[k] && hl==ABS && st[k]==1 -> printf("K%d: watch: DELETED clm=%d seqnew=%d left=%d\n",k,hclm,sd[k],O[k]); tomb(k,0) }
  :: d_step { L(k) && dirty[k] && hl==GONE -> printf("K%d: watch: void, DELETED\n",k); st[k]=0; O[k]=0; cc[k]=0; dirty[k]=0; B4(k); sd[k]=0; pend[k]=0 }
  :: d_step { L(k) && dirty[k] && hl==ABS && st[k]==3 -> assert(0) }
#ifdef NEWH
 #ifdef GAP      /* a relist: nothing shows that H's Lease was there */
  :: d_step { L(k) && dirty[k] && hl==ABS && st[k]==0 -> printf("K%d: relist, H was never seen\n",k); dirty[k]=0; B4(k); sd[k]=0; pend[k]=0 }
 #endif
  :: d_step { L(k) && dirty[k] && hl==ABS && (st[k]==0 || st[k]==2) -> printf("K%d: watch: ADDED, DELETED clm=%d\n",k,hclm); st[k]=1; sd[k]=1; tomb(k,0) }
#endif
#ifndef NORELIST
  :: d_step { L(k) && dirty[k] && MISS && st[k]==1 -> printf("K%d: relist: H missing, cached clm=%d left=%d\n",k,cc[k],O[k]);
#ifdef BLK
       assert(hl!=GONE);
#endif
       tomb(k,1) }
#endif
  :: d_step { L(k) && st[k]==2 && O[k]==0 -> st[k]=0; cc[k]=0 }
  :: d_step { L(k) && st[k]==1 && O[k]==0 -> printf("K%d: evict H cas=%d\n",k,!dirty[k]);
       if :: !dirty[k] && VIS -> hl=VOID; hclm=0; kv=0; rqok=0; touch(0); obs(k)
          :: else -> O[k]=DUR(k) fi }
  :: d_step { L(k) -> if :: st[k]==2 && O[k]>0 -> pub[k]=O[k]; pcl[k]=cc[k] :: else -> pub[k]=0; pcl[k]=0 fi;
#ifdef PUBLD
       pl[k]=(KNOWSH(k) || wl[k] && !kn[k]);
#endif
       ps[k]=kn[k]; pw[k]=(mk & (255-BIT(k))) & (255-pend[k]); PA(k,1);
#ifdef COLD2
       pco[k]=co[k];
#endif
       printf("K%d: writes tombstone=%d settled=%d watched(bits)=%d\n",k,pub[k],ps[k],pw[k]) }
  READ(k,1)
  READ(k,2)
#if NK>2
  READ(k,3)
#endif
#ifdef COLD2
  CREAD(k,1)
  CREAD(k,2)
#if NK>2
  CREAD(k,3)
#endif
  :: d_step { L(k) && !kn[k] && co[k] && wj[k]==0 && EXCOK(k) -> printf("K%d: cold start\n",k); settle(k) }
#endif
  :: d_step { L(k) && !kn[k] && QT[k]==0 -> printf("K%d: LD after its first list, settled\n",k); settle(k) }
#ifdef REFRESH
  REFR(k,1)
  REFR(k,2)
#if NK>2
  REFR(k,3)
#endif
#endif
  :: d_step { L(k) && kn[k] && CAUGHT(k) && ATLIST(k) && INLIST(k) && !(!VIS && st[k]==2 && O[k]>0 && cc[k]) && CANWORK ->
       printf("K%d: ACTIVATES p (st=%d O=%d cc=%d) while H can work (F=%d)\n",k,st[k],O[k],cc[k],F); assert(0) }
#ifdef OWNCLAIM
  :: d_step { L(k) && kn[k] && !kc[k] -> printf("K%d: claim commits, H lst=%d clm=%d\n",k,hl,hclm); kc[k]=1; b4[k]=dirty[k]; sh[k]=VIS; sl[k]=hclm }
  :: d_step { kc[k] -> printf("K%d: withdraws\n",k); kc[k]=0; B4(k); sh[k]=0; sl[k]=0; kq[k]=0 }
  :: d_step { L(k) && kc[k] && kq[k]==0 && !(VIS && hclm) -> printf("K%d: LIST H lst=%d\n",k,hl); kq[k]=(VIS->2:1) }
  :: d_step { L(k) && b4[k] && sh[k] -> printf("K%d: watch comes to its own claim: H held clm=%d\n",k,sl[k]); st[k]=1; cc[k]=sl[k]; O[k]=DUR(k); B4(k) }
#endif
#ifndef NOCHURN
#ifdef NOREJ
  :: d_step { k!=1 && up[k] -> printf("K%d: crash/stop\n",k); kwipe(k) }
#else
  :: d_step { up[k] -> printf("K%d: crash/stop\n",k); kwipe(k) }
#endif
  :: d_step { !up[k] && kl[k] -> printf("env: Lease of K%d evicted/deleted\n",k); norec(k) }
  :: d_step { go && !up[k] && !kl[k] && JOINOK -> JOINED up[k]=1; kl[k]=1; printf("K%d: CREATE\n",k);
#ifdef BYCREATE
       mark(k);
#endif
#ifdef NOTBL
       QT[k]=WAITLD;
#endif
     }
  :: d_step { up[k] && !ls[k] ->
#ifndef BYCREATE
#ifndef SYNCBOUND
       mark(k);
#endif
#endif
       ls[k]=1;
#if defined(NOTBL) || defined(NOWAIT)
       skip;
#else
       QT[k]=WAITLD;
#endif
#ifdef PUBLD
       wl[k]=(WAITLD==LDH);
#endif
       look(k);
#ifdef ATJOIN
       jj=1; do :: jj<=NK -> if :: jj!=k && kl[jj] -> adopt(k,jj) :: else fi; jj++ :: else -> break od; jj=0;
#endif
#if defined(COLD) || defined(COLDJ) || defined(COLD2)
       cold=!VIS; jj=1; do :: jj<=NK ->
         if
#ifdef COLDJ
         :: jj!=k && kl[jj] -> cold=0
#else
         :: jj!=k && kl[jj] && pa[jj] -> cold=0
#endif
         :: else fi; jj++ :: else -> break od; jj=0;
       #ifdef COLD2
       wj[k]=0; co[k]=cold;
       if :: cold -> jj=1; do :: jj<=NK -> if :: jj!=k && kl[jj] -> wj[k]=wj[k] | BIT(jj) :: else fi; jj++ :: else -> break od; jj=0 :: else fi; cold=0;
#else
       if :: cold && EXCOK(k) -> printf("K%d: cold start\n",k); settle(k) :: else fi; cold=0;
#endif
#endif
       printf("K%d: first LIST: H lst=%d\n",k,hl) }
#ifdef SYNCST
  :: d_step { up[k] && ls[k] && !sy[k] -> sy[k]=1; look(k);
#ifdef SYNCBOUND
       mark(k); QT[k]=WAITLD;
#endif
       printf("K%d: informer list: H lst=%d\n",k,hl) }
#endif
#endif
  od
}
proctype H() {
  do
#ifdef NEWH
  :: d_step { !hnew -> hnew=1; printf("H: CREATE\n"); hl=HELD; hclm=0; hup=1; kv=1; touch(1) }
#endif
  :: d_step { hup && rq==0 && kv -> printf("H: send renew clm=%d\n",mine); rq=1; rqc=mine; rqok=1; S=RDH; kv=0 }
#ifndef HMIN
  :: d_step { hup && rq==0 && kv && !mine -> printf("H: send claim\n"); rq=1; rqc=1; rqok=1; S=RDH; kv=0 }
  :: d_step { hup && rq==0 && kv && mine && !act && !cs -> printf("H: send release\n"); mine=0; HQ0; rq=1; rqc=0; rqok=1; S=RDH; kv=0 }
#ifdef VOIDREL
  :: d_step { hup && rq==0 && kv && mine==0 && !act && !cs && hl==HELD -> printf("H: voids its Lease\n"); hdie(); hclm=0; hl=VOID; VA=0; touch(1) }
#ifdef EARLY
  :: d_step { hl==VOID -> printf("void Lease of H deleted\n"); hl=GONE; VA=0; touch(0) }
#else
  :: d_step { hl==VOID && VA>=LD -> printf("void Lease of H deleted\n"); hl=GONE; VA=0; touch(0) }
#endif
#endif
#endif
  :: d_step { !hup && rq==2 -> rq=0; rqc=0; rqok=0; S=0 }
  :: d_step { rq==1 -> if :: rqok && hl==HELD -> printf("api: H's write clm=%d commits\n",rqc); hclm=rqc; UNEDIT; rq=2; touch(1) :: else -> rq=0; rqc=0; rqok=0; S=0 fi }
  :: d_step { hup && rq==2 -> printf("H: response F=%d\n",S); F=S; if :: rqc -> mine=1 :: else fi; rq=0; rqc=0; rqok=0; S=0; kv=1 }
  :: d_step { hup && rq==2 -> printf("H: response lost\n"); rq=0; rqc=0; rqok=0; S=0 }
  :: d_step { hup && rq==0 && !kv -> printf("H: GET own lst=%d\n",hl); if :: hl==HELD -> kv=1 :: else -> hdie() fi }
#ifndef HMIN
#ifdef OWNCLAIM
 #ifdef NOLOOK
  :: d_step { hup && mine && !hq -> hq=1 }
 #else
  :: d_step { hup && mine && !hq && VIS && !CLAIMED(1) && !CLAIMED(2) && !CLAIMED(3) -> printf("H: LIST, no other claim\n"); hq=1 }
 #endif
#endif
  :: d_step { hup && mine && !act && VIS && HMAYACT -> printf("H: activates p\n"); act=1 }
  :: d_step { hup && act && !cs && F>0 -> printf("H: ENTER\n"); cs=1 }
  :: d_step { cs -> cs=0; printf("H: leave\n") }
  :: d_step { hup && act && !cs -> act=0; printf("H: drained\n") }
  :: d_step { hup && rq!=2 -> printf("H: crash\n"); if :: rq==1 -> hup=0; F=0; kv=0; mine=0; act=0; cs=0; S=0 :: else -> hdie() fi }
#endif
#ifdef EDITLD
  :: d_step { hl==HELD && !hed -> printf("env: the duration on H's Lease is edited\n"); hed=1; kv=0; rqok=0; touch(0) }
#endif
#ifndef NODEL
  :: d_step { hl==HELD -> printf("env: H's Lease is DELETED (clm=%d)\n",hclm); hl=ABS; kv=0; rqok=0; touch(0) }
#endif
  od
}
#if defined(VOIDREL) && defined(BLK)
#define OVERDUE(k) (dirty[k] && lag[k]>=WL)
#else
#define OVERDUE(k) (0)
#endif
active proctype CLK() { byte i;
  d_step { i=1; do :: i<=NK -> kl[i]=1; up[i]=1; ls[i]=1; st[i]=1; O[i]=LDH; kn[i]=1; ps[i]=1;
#ifdef PUBLD
     wl[i]=1; pl[i]=1;
#endif
#ifdef EDITLD
     kd[i]=1;
#endif
     PA(i,1);
#ifdef SYNCST
     sy[i]=1;
#endif
     i++ :: else -> break od; i=0 };
#ifdef NEWH
  d_step { hl=ABS; hup=0; kv=0; i=1; do :: i<=NK -> st[i]=0; O[i]=0; i++ :: else -> break od; i=0 };
#endif
#ifdef HMIN
  d_step { mine=1; act=1; F=RDH; hclm=1; i=1; do :: i<=NK -> cc[i]=1; i++ :: else -> break od; i=0 };
#endif
  atomic { run K(1); run K(2);
#if NK>2
    run K(3);
#endif
    run H(); go=1 };
  do
  :: d_step { go && !LATE && !OVERDUE(1) && !OVERDUE(2) && !OVERDUE(3) -> printf("tick\n"); DEC(F); DEC(S); i=1; do :: i<=NK -> DEC(O[i]); DEC(QT[i]);
#if defined(VOIDREL) && defined(BLK)
       if :: dirty[i] -> lag[i]=(lag[i]<WL->lag[i]+1:WL) :: else -> lag[i]=0 fi;
#endif
       i++ :: else -> break od; i=0;
#ifdef VOIDREL
       if :: hl==VOID && VA<LD -> VA++ :: else fi;
#endif
     }
  od
}
