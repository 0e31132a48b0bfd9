/* tomb.pml - R47: how tombstones are keyed, bounded and adopted. R29, R43 and R49 are in r29.pml and r49.pml.
 *
 * H's Lease (UID 1, holder A, claims p) is deleted while H can work for RD more ticks (F). K1 and K2 are members; K1 is settled and
 * sees the deletion; K2 joins later, is not settled, and reads K1's record once K1 has seen the deletion (R49). A second tombstone,
 * about q, is known to K1 with any remaining time. A record has room for one entry, so K1 publishes a merged one while both live.
 *
 *   t[2k+e]  remaining time of entry e (0: about p, 1: about q) that member k keeps        m[k]  of a merged entry, which claims everything
 *   rp, rm   the remaining time that a record publishes, for p and for everything          nw[k] k has a write that the other has not read
 *   bad[k]   k's record was edited, its checksum is wrong        fv[k]  k saw another Lease (UID 2) with holder A as void
 *
 * Checked: no member activates p while H can work; and with -DEND, no tombstone lives BND ticks after the deletion (in which each
 * member writes every tick, and each write is read within one).
 *
 * Mutants: KEYHOLDER   tombstones are keyed by the holder's text only: a forged void record hides the deletion
 *          ADOPTEDITED tombstones are adopted from an edited record
 *          MERGEMIN    the merged entry has the shortest time            MERGECLAIMS  it claims what one of its entries claims
 *          CUT         what exceeds the bound is left out
 *          MERGEANY    (END) settled members, too, adopt merged entries: two members keep each other's alive for ever
 */
#ifndef LD
#define LD 4
#endif
#ifndef RD
#define RD 3
#endif
#ifndef BND
#define BND 9
#endif
#define DEC(x) x=(x>0->x-1:0)
byte F=RD; bool deleted;
bool up[2]; bool settled[2]; bool saw[2];
byte t[4]; byte m[2];
byte rp[2]; byte rm[2]; bool rq1[2]; bool nw[2]; bool rs[2];
bool bad[2]; bool fv[2]; byte forged; byte joins; byte G; byte due[2];
#define E(k,e) t[2*(k)+(e)]
#define MAX(a,b) ((a)>(b)->(a):(b))
#define MIN(a,b) ((a)<(b)->(a):(b))
#ifdef ADOPTEDITED
#define GOOD(k) (1)
#else
#define GOOD(k) (!bad[k])
#endif
inline publish(k) {
  rp[k]=0; rm[k]=0; rs[k]=saw[k]; bad[k]=0; nw[k]=1;
  if
#if defined(CUT)
  :: E(k,0)>0 && E(k,1)>0 -> skip
#elif defined(MERGEMIN)
  :: E(k,0)>0 && E(k,1)>0 -> rm[k]=MIN(E(k,0),E(k,1))
#elif defined(MERGECLAIMS)
  :: E(k,0)>0 && E(k,1)>0 -> rq1[k]=1
#else
  :: E(k,0)>0 && E(k,1)>0 -> rm[k]=MAX(E(k,0),E(k,1)); rm[k]=MAX(rm[k],m[k])
#endif
  :: else -> rp[k]=E(k,0); rm[k]=m[k];
     if :: m[k]>0 && E(k,0)>0 -> rm[k]=MAX(m[k],E(k,0)); rp[k]=0 :: else fi
  fi;
  printf("K%d writes p=%d all=%d\n",k+1,rp[k],rm[k]) }
inline adoptm(k,j) { m[k]=MAX(m[k],rm[j]) }
proctype K(byte k) {
  do
  /* the watch shows the deletion (R29, R43) */
  :: d_step { up[k] && deleted && !saw[k] && settled[k] -> saw[k]=1; printf("K%d sees the deletion\n",k+1);
#ifdef KEYHOLDER
       if :: fv[k] -> skip :: else -> E(k,0)=LD fi
#else
       E(k,0)=LD
#endif
     }
  :: d_step { up[k] && due[k]>0 -> publish(k); due[k]=0 }
  /* a member that is not settled reads a settled one's record, adopts, and is settled (R49) */
  :: d_step { up[k] && !settled[k] && up[1-k] && rs[1-k] && GOOD(1-k) -> printf("K%d adopts p=%d all=%d of K%d\n",k+1,rp[1-k],rm[1-k],2-k); E(k,0)=rp[1-k]; adoptm(k,1-k); settled[k]=1; saw[k]=1; nw[1-k]=0 }
  :: d_step { up[k] && settled[k] && nw[1-k] && GOOD(1-k) -> nw[1-k]=0;
       if :: rp[1-k]>0 && E(k,0)>rp[1-k] -> E(k,0)=rp[1-k] :: else fi;                /* R29: the smaller time */
#if defined(MERGEANY)
       adoptm(k,1-k);
#endif
     }
#ifndef END
  :: d_step { up[k] && settled[k] && deleted && saw[k] && E(k,0)==0 && m[k]==0 && F>0 -> printf("K%d ACTIVATES p, H can work for %d\n",k+1,F); assert(0) }
#endif
  /* churn */
  :: d_step { joins<3 && deleted && up[k] && settled[1-k] && saw[1-k] -> joins++; printf("K%d is replaced by a newcomer\n",k+1);
       settled[k]=0; saw[k]=0; fv[k]=0; E(k,0)=0; E(k,1)=0; m[k]=0; rp[k]=0; rm[k]=0; rs[k]=0; bad[k]=0; nw[k]=0; due[k]=1 }
  od }
active proctype ENV() {
  atomic {
    if :: t[1]=0 :: t[1]=1 :: t[1]=2 :: t[1]=3 :: t[1]=4 fi; t[3]=t[1];     /* the other tombstone */
    up[0]=1; up[1]=1; settled[0]=1; settled[1]=1; run K(0); run K(1) };
  do
  :: d_step { !deleted -> deleted=1; printf("H's Lease is deleted\n") }
  :: d_step { forged<2 && !fv[0] -> forged++; fv[0]=1; printf("K1 sees a forged void record of holder A\n") }
  :: d_step { forged<2 && !bad[0] -> forged++; bad[0]=1; rp[0]=1; rm[0]=0; rs[0]=1; printf("K1's record is edited: p=1\n") }
  :: d_step { !(deleted && settled[0] && !saw[0] && G>0) && !(deleted && settled[1] && !saw[1] && G>0) && due[0]<1 && due[1]<1 ->
       printf("tick\n");
       if :: deleted -> DEC(F); if :: G<BND -> G++ :: else fi :: else fi;
       DEC(t[0]); DEC(t[1]); DEC(t[2]); DEC(t[3]); DEC(m[0]); DEC(m[1]); due[0]=1; due[1]=1;
#ifdef END
       assert(!(G>=BND && (t[0]>0 || t[2]>0 || m[0]>0 || m[1]>0)))
#endif
     }
  od }
