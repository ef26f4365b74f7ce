# SPDX-License-Identifier: Apache-2.0
# gnuplot -e "dir='build/demo'" demo.gp: drift by layer (drift.tsv) and loss of the training through the whole model
# (model.tsv), in the terminal and as drift.svg.
set datafile separator "\t"
blue = "#0072b2"; orange = "#d55e00"; green = "#009e73"; grey = "#999999"

set style line 1 lc rgb orange lw 2 pt 7 ps 0.8
set style line 2 lc rgb blue   lw 2 pt 5 ps 0.8
set style line 3 lc rgb green  lw 2 pt 9 ps 1
set style line 4 lc rgb grey   lw 1
set style line 5 lc rgb green  lw 2 pt 7 ps 0.8

plot_drift = "plot dir.'/drift.tsv' using 1:2 with linespoints ls 1 title 'gptq', \
    '' using 1:3 with linespoints ls 2 title 'gptq+nt', '' using 1:4 with linespoints ls 3 title 'gptq+nt-model'"
plot_loss = "plot dir.'/model.tsv' using 1:3 with lines ls 4 title 'of each step', \
    '' using 1:6 with linespoints ls 5 title 'held-out'"

# the terminal: one below the other
set terminal dumb noenhanced 100 20
set xtics 1; set yrange [0:*]; set key bottom right
set title "drift of channel means, by layer"
eval(plot_drift)
set xtics autofreq
set title "KL to the float model, by step of training through the whole model"
eval(plot_loss)

# the picture: side by side
set terminal svg noenhanced size 960,400 font "Helvetica,13" background rgb "white"
set output dir."/drift.svg"
set multiplot layout 1,2 margins 0.07,0.985,0.15,0.9 spacing 0.11
set border 3 lc rgb "#444444"; set tics nomirror; set grid ytics lc rgb "#dddddd" lt 1
set key bottom right Left reverse samplen 2
set title "Drift of channel means from the float model"
set xlabel "layer"; set xtics 1; set xrange [-0.2:*]
eval(plot_drift)
set title "KL to the float model, training through all layers"
set xlabel "step"; set xtics autofreq; set xrange [0:*]; set ylabel "nats" offset 0.5
eval(plot_loss)
unset multiplot
