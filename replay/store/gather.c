/* Copies pieces of rows at random places of a large array to given places of smaller ones.

   Each row is a wait for memory of its own. Asking for the rows AHEAD of the one that is copied overlaps these waits;
   benchmarks/replay.py compares it with torch.index_select. */

#include <stdint.h>
#include <string.h>

#define AHEAD 4
#define LINE 64
#define LINES 8 /* of a piece to ask for; the processor's own prefetcher follows from there */

typedef struct {
    const char *source;   /* the piece of row 0 */
    const int64_t *index; /* rows to copy from */
    char *out;            /* the piece of row 0 of the output */
    int64_t stride, length, out_stride;
} Piece;

/* For i < count, of every piece: out[place[i]] = source[index[i]]. One piece after the other: asking for all pieces of a
   row at once is more than the processor keeps in flight, and takes a quarter longer. */
void brc_gather(const Piece *pieces, int64_t num_pieces, const int64_t *place, int64_t count)
{
    for (const Piece *p = pieces; p < pieces + num_pieces; p++)
        for (int64_t i = 0; i < count; i++) {
            if (i + AHEAD < count) {
                const char *row = p->source + p->index[i + AHEAD] * p->stride;
                for (int64_t byte = 0; byte < p->length && byte < LINES * LINE; byte += LINE)
                    __builtin_prefetch(row + byte);
            }
            memcpy(p->out + place[i] * p->out_stride, p->source + p->index[i] * p->stride, p->length);
        }
}
