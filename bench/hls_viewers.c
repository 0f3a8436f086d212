/* Many HLS viewers in one process, each on one keep-alive connection.
 *
 *   hls_viewers PORT COUNT SECONDS PATH
 *
 * PATH is a media playlist. Each viewer asks for it, fetches the segments it has not had (from the last three on), and asks again
 * after a second. A stall is a viewer whose segments lag the wall clock by more than three target durations. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_VIEWERS 4096
#define REPLY_BYTES 16384
#define NAME_BYTES 200
#define STALL_US 6000000L
#define POLL_US 1000000L

enum { IDLE, PLAYLIST, SEGMENT };

struct viewer {
    int fd, state, has_head, queued;
    long next_us, last_segment_us;
    size_t left, filled;
    long last_from;
    char reply[REPLY_BYTES + 1], queue[8][NAME_BYTES];
};
static struct viewer all[MAX_VIEWERS];
static char folder[512], path[512], sink[1 << 20];
static long failed, stalls, requests, segments;
static size_t bytes;

static long now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static void ask(struct viewer *v, const char *what, int state)
{
    char text[1200];
    int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", what);
    if (write(v->fd, text, length) != length)
        failed++;
    v->state = state;
    v->has_head = 0;
    v->filled = 0;
    requests++;
}

/* Notes the segments of a playlist that are new; the first time, the last three. */
static void read_playlist(struct viewer *v, char *body)
{
    char *names[512];
    int count = 0;
    for (char *line = strtok(body, "\r\n"); line; line = strtok(NULL, "\r\n"))
        if (*line && *line != '#' && count < 512)
            names[count++] = line;
    int first = v->last_from < 0 && count > 3 ? count - 3 : 0;
    for (int i = first; i < count && v->queued < 8; i++) {
        long from = atol(names[i]);
        if (from > v->last_from && strlen(names[i]) < NAME_BYTES) {
            strcpy(v->queue[v->queued++], names[i]);
            v->last_from = from;
        }
    }
}

static void next(struct viewer *v, long now)
{
    if (v->queued) {
        char url[1024];
        snprintf(url, sizeof url, "%s/%s", folder, v->queue[0]);
        memmove(v->queue[0], v->queue[1], sizeof v->queue[0] * --v->queued);
        ask(v, url, SEGMENT);
    } else {
        v->state = IDLE;
        v->next_us = now + POLL_US;
    }
}

static void done(struct viewer *v, long now)
{
    if (v->state == PLAYLIST) {
        read_playlist(v, v->reply);
    } else {
        segments++;
        v->last_segment_us = now;
    }
    next(v, now);
}

static void readable(struct viewer *v, long now)
{
    if (!v->has_head) {
        ssize_t got = recv(v->fd, v->reply + v->filled, REPLY_BYTES - v->filled, MSG_DONTWAIT | MSG_PEEK);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN)
                failed++, v->state = IDLE, v->next_us = now + 3600000000L;
            return;
        }
        v->reply[v->filled + got] = 0;
        char *end = strstr(v->reply, "\r\n\r\n"), *length = strcasestr(v->reply, "content-length:");
        if (!end || !length)
            return;
        size_t head = end + 4 - v->reply;
        v->left = atol(length + 15);
        if (strncmp(v->reply, "HTTP/1.1 200", 12))
            failed++;
        recv(v->fd, sink, head, MSG_DONTWAIT);
        v->has_head = 1;
        v->filled = 0;
    }
    while (v->left) {
        int keep = v->state == PLAYLIST && v->filled + v->left <= REPLY_BYTES;
        ssize_t got = recv(v->fd, keep ? v->reply + v->filled : sink, v->left < sizeof sink ? v->left : sizeof sink, MSG_DONTWAIT | (keep ? 0 : MSG_TRUNC));
        if (got <= 0)
            return;
        v->left -= got;
        bytes += got;
        if (keep)
            v->reply[v->filled += got] = 0;
    }
    done(v, now);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return fprintf(stderr, "usage: hls_viewers PORT COUNT SECONDS PATH\n"), 2;
    int count = atoi(argv[2]), poller = epoll_create1(0), one = 1;
    snprintf(path, sizeof path, "%s", argv[4]);
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    long start = now_us();
    for (int i = 0; i < count; i++) {
        struct viewer *v = &all[i];
        v->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(v->fd, (void *) &address, sizeof address))
            return perror("connect"), 1;
        setsockopt(v->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        v->last_from = -1;
        v->next_us = start + i * 2000000L / count; /* viewers do not come at the same moment */
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = v};
        epoll_ctl(poller, EPOLL_CTL_ADD, v->fd, &event);
    }
    printf("{\"ready\": true}\n");
    fflush(stdout);
    long end = start + atol(argv[3]) * 1000000L;
    for (long now; (now = now_us()) < end;) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, 5);
        for (int i = 0; i < ready; i++)
            readable(events[i].data.ptr, now_us());
        for (int i = 0; i < count; i++) {
            struct viewer *v = &all[i];
            if (v->state == IDLE && v->next_us <= now)
                ask(v, path, PLAYLIST);
            if (v->last_segment_us && now - v->last_segment_us > STALL_US) {
                stalls++;
                v->last_segment_us = now;
            }
        }
    }
    long starved = 0;
    for (int i = 0; i < count; i++)
        starved += !all[i].last_segment_us;
    printf("{\"viewers\": %d, \"requests\": %ld, \"segments\": %ld, \"bytes\": %zu, \"failed\": %ld, \"stalls\": %ld}\n", count, requests, segments, bytes,
        failed + starved, stalls);
    return 0;
}
