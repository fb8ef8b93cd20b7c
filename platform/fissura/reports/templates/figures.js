const dark = matchMedia('(prefers-color-scheme: dark)');
const restyled = layout => {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue('--text').trim(), line = style.getPropertyValue('--line').trim();
  const clear = 'rgba(0,0,0,0)';
  const modebar = {bgcolor: clear, color: line, activecolor: text};
  const next = {...layout, modebar, paper_bgcolor: clear, plot_bgcolor: clear,
    font: {...layout.font, color: text, size: 12, family: 'system-ui, sans-serif'}, autosize: true};
  const axes = Object.keys(layout).filter(key => /^[xy]axis/.test(key));
  for (const key of new Set([...axes, 'xaxis', 'yaxis']))
    next[key] = {...layout[key], gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true};
  return next;
};
const draw = () => document.querySelectorAll('script[data-plot]').forEach(holder => {
  const figure = JSON.parse(holder.textContent);
  const options = {responsive: true, displaylogo: false};
  Plotly.react(holder.dataset.plot, figure.data, restyled(figure.layout), options);
});
draw();
dark.addEventListener('change', draw);
