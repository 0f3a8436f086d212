/* Many viewers in one process: connects, asks, and throws away what comes.
 *
 *   viewers PORT COUNT SECONDS RATE REQUEST
 *
 * Opens COUNT connections to the loopback, RATE a second (0: at once), writes REQUEST (a file) to each and reads for SECONDS after the
 * last one. Data is dropped in the kernel (MSG_TRUNC). Prints one line of JSON: bytes of all viewers, of the poorest one, closed
 * connections, and the time from connect to the first byte after `skip` bytes of each, sorted percentiles in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_VIEWERS 20000

struct viewer {
    int fd;
    long began_us, first_us;
    size_t bytes;
};
static struct viewer all[MAX_VIEWERS];
static char request[65536], sink[1 << 20];

static long now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static int ascending(const void *a, const void *b)
{
    long one = *(const long *) a, other = *(const long *) b;
    return one < other ? -1 : one > other;
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return fprintf(stderr, "usage: viewers PORT COUNT SECONDS RATE REQUEST SKIP_BYTES\n"), 2;
    int count = atoi(argv[2]), opened = 0, closed = 0;
    long seconds = atol(argv[3]), rate = atol(argv[4]);
    size_t skip = atol(argv[6]), length = 0;
    FILE *file = fopen(argv[5], "r");
    if (file) {
        length = fread(request, 1, sizeof request, file);
        fclose(file);
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int poller = epoll_create1(0), one = 1;
    long start = now_us(), end = 0;
    while (!end || now_us() < end) {
        while (opened < count && (!rate || now_us() - start >= opened * 1000000L / rate)) {
            struct viewer *v = &all[opened];
            v->fd = socket(AF_INET, SOCK_STREAM, 0);
            v->began_us = now_us();
            if (connect(v->fd, (void *) &address, sizeof address))
                return perror("connect"), 1;
            setsockopt(v->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            if (length && write(v->fd, request, length) != (ssize_t) length)
                return perror("write"), 1;
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = v};
            epoll_ctl(poller, EPOLL_CTL_ADD, v->fd, &event);
            opened++;
        }
        if (opened == count && !end) {
            end = now_us() + seconds * 1000000;
            printf("{\"ready\": true}\n");
            fflush(stdout);
        }
        struct epoll_event events[512];
        int ready = epoll_wait(poller, events, 512, opened < count ? 1 : 20);
        for (int i = 0; i < ready; i++) {
            struct viewer *v = events[i].data.ptr;
            ssize_t got = recv(v->fd, sink, sizeof sink, MSG_DONTWAIT | (v->first_us ? MSG_TRUNC : 0));
            if (got > 0) {
                v->bytes += got;
                if (!v->first_us && v->bytes > skip)
                    v->first_us = now_us() - v->began_us;
            } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
                closed++;
                epoll_ctl(poller, EPOLL_CTL_DEL, v->fd, NULL);
                close(v->fd);
            }
        }
    }
    static long first[MAX_VIEWERS];
    size_t total = 0, least = -1;
    int answered = 0;
    for (int i = 0; i < count; i++) {
        total += all[i].bytes;
        if (all[i].bytes < least)
            least = all[i].bytes;
        if (all[i].first_us)
            first[answered++] = all[i].first_us;
    }
    qsort(first, answered, sizeof *first, ascending);
    printf("{\"viewers\": %d, \"bytes\": %zu, \"least\": %zu, \"closed\": %d, \"answered\": %d, \"first_us_median\": %ld, \"first_us_p95\": %ld, "
           "\"first_us_max\": %ld}\n",
        count, total, least, closed, answered, answered ? first[answered / 2] : -1, answered ? first[answered * 95 / 100] : -1,
        answered ? first[answered - 1] : -1);
    return 0;
}
