"""`brc report`: one HTML page of one or several runs, which needs no server and no network.

runs reads a run's folder. curves makes curves with intervals from its evaluations. figures draws SVG with matplotlib;
the page chooses the colors. page puts figures and tables into page.html, with page.css and page.js inside. `brc report`
calls page.write(), and so does a run at its end. Nothing here imports Ray or torch.
"""
