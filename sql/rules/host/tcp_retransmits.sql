-- More than one TCP segment in fifty is sent again: packets are lost on the way. Threshold: ours; node-mixin has 1 % of errors.
CREATE ALERT tcp_retransmits
WITH (severity = 'warning', "label.class" = 'performance',
      for = '1 minute',
      summary = '{{ host }} sends {{ resent }} of its TCP segments again')
AS
SELECT host, ratio(increase(tcp_retransmitted_segments_total),
                   increase(tcp_sent_segments_total)) AS resent
FROM HOP(host, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY window_start, window_end, host
HAVING increase(tcp_sent_segments_total) > 1000
   AND ratio(increase(tcp_retransmitted_segments_total),
             increase(tcp_sent_segments_total)) > 0.02;
