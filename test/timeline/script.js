'use strict';
(() => {
  const chart = document.getElementById('chart');
  const tip = document.getElementById('tip');
  const whole = Number(chart.dataset.width);
  const svgs = [...document.querySelectorAll('svg.plot')];
  const axis = chart.querySelector('.axis');
  const grid = chart.querySelector('.grid');
  const patterns = [...document.querySelectorAll('pattern')].map(p => [p, p.getAttribute('patternTransform').replace(/^scale\([^)]*\)/, '')]);
  const first = chart.querySelector('.axis span');
  const faults = [...chart.querySelectorAll('.fault')];
  // The visible time, in milliseconds.
  let from = 0, width = whole;

  const text = ms => {
    const a = Math.abs(ms);
    if (a === 0) return '0';
    if (a >= 60000) {
      const m = Math.trunc(ms / 60000);
      const rest = Number(Math.abs(ms - m * 60000).toFixed(0)) / 1000;
      return m + 'm' + (rest ? rest + 's' : '');
    }
    return a >= 1000 ? Number(ms.toFixed(0)) / 1000 + 's' : a >= 1 ? Number(ms.toFixed(2)) + 'ms' : Math.round(ms * 1000) + 'µs';
  };
  // Times are shown relative to the start of the run, which can differ from the start of the chart.

  const ticks = () => {
    const least = width / 12;
    const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 30000, 60000, 120000, 300000, 600000, 1800000, 3600000];
    const step = steps.find(s => s >= least) || Math.ceil(least / 3600000) * 3600000;
    axis.replaceChildren();
    grid.replaceChildren();
    for (let t = Math.ceil(from / step) * step; t <= from + width; t += step) {
      const label = document.createElement('span');
      label.textContent = text(t);
      label.style.setProperty('--at', t);
      axis.append(label);
      const line = document.createElement('i');
      line.style.setProperty('--at', t);
      grid.append(line);
    }
  };

  const show = (f, w) => {
    width = Math.min(Math.max(w, 0.05), whole);
    from = Math.min(Math.max(f, 0), whole - width);
    chart.style.setProperty('--from', from);
    chart.style.setProperty('--width', width);
    const scale = width / Math.max(axis.clientWidth, 1);
    for (const s of svgs) {
      const box = s.viewBox.baseVal;
      s.setAttribute('viewBox', from + ' 0 ' + width + ' ' + box.height);
    }
    for (const [p, rest] of patterns) p.setAttribute('patternTransform', 'scale(' + scale + ' 1)' + rest);
    ticks();
  };
  let wanted = null;
  const later = (f, w) => {
    if (!wanted) requestAnimationFrame(() => { show(...wanted); wanted = null; });
    wanted = [f, w];
  };
  const now = () => wanted || [from, width];
  const zoom = (factor, at) => {
    const [f, w] = now();
    const n = Math.min(w * factor, whole);
    later(at - (at - f) * n / w, n);
  };
  const move = part => { const [f, w] = now(); later(Math.min(Math.max(f + w * part, 0), whole - w), w); };
  const act = what => {
    const [f, w] = now();
    ({ in: () => zoom(0.5, f + w / 2), out: () => zoom(2, f + w / 2), left: () => move(-0.3), right: () => move(0.3), all: () => later(0, whole) })[what]();
  };

  // The time under the pointer; null to the left of the charts.
  const timeAt = event => {
    const box = axis.getBoundingClientRect();
    return box.left > event.clientX ? null : from + (event.clientX - box.left) / box.width * width;
  };

  const interval = rect => {
    const x = Number(rect.getAttribute('x')), w = Number(rect.getAttribute('width'));
    return 'from ' + text(x) + ' to ' + text(x + w) + ' (' + text(w) + ')';
  };
  const partitions = rect => {
    const row = Number(rect.ownerSVGElement.dataset.row);
    const y = Number(rect.getAttribute('y')) / row, n = Number(rect.getAttribute('height')) / row;
    return n === 1 ? 'partition ' + y : 'partitions ' + y + ' to ' + (y + n - 1);
  };
  const partitionAt = (rect, event) => {
    const svg = rect.ownerSVGElement;
    return Math.floor((event.clientY - svg.getBoundingClientRect().top) / Number(svg.dataset.row));
  };
  const describe = (target, event, t) => {
    const own = target.closest('[data-tip]');
    if (own) return own.dataset.tip + (own.tagName === 'rect' ? '\n' + interval(own) : '');
    const gap = target.closest('[data-cause]');
    if (gap) {
      return 'partition ' + partitionAt(target, event) + ': no owner, after ' + gap.dataset.cause + ' of ' + gap.dataset.before +
        '\n' + interval(target) + (gap.dataset.after ? ', then ' + gap.dataset.after : '');
    }
    const g = target.closest('[data-process]');
    if (!g) return '';
    if (g.classList.contains('life')) {
      let owned = 0;
      const steps = (g.dataset.steps || '').split(' ').map(Number);
      for (let i = 0; i + 1 < steps.length; i += 2) if (t >= steps[i]) owned = steps[i + 1];
      const state = ['fenced', 'paused', 'joined'].find(c => target.classList.contains(c));
      return g.dataset.process + ': active on ' + owned + ' partitions' + (state ? '\n' + state + ' ' + interval(target) : '');
    }
    const how = g.classList.contains('fenced') ? ', fenced' : g.classList.contains('paused') ? ', paused' : '';
    const end = target.dataset.end;
    return g.dataset.process + how + ': partition ' + partitionAt(target, event) +
      (partitions(target).startsWith('partitions') ? ' (of ' + partitions(target) + ')' : '') + '\n' + interval(target) +
      (end === 'end' ? ', until the end of the run' : end ? ', until ' + end : '');
  };

  const cursor = document.createElement('div');
  cursor.className = 'cursor';
  cursor.hidden = true;
  const selection = document.createElement('div');
  selection.className = 'selection';
  selection.hidden = true;
  chart.append(cursor, selection);
  const left = t => 'calc(var(--gutter) + (100% - var(--gutter)) * ' + (t - from) / width + ')';
  let start = null;

  chart.addEventListener('pointermove', event => {
    const t = timeAt(event);
    cursor.hidden = tip.hidden = t === null;
    if (t === null) return;
    cursor.style.left = left(t);
    if (start !== null) {
      selection.hidden = false;
      selection.style.left = left(Math.min(start, t));
      selection.style.width = Math.abs(t - start) / width * axis.clientWidth + 'px';
    }
    const mark = event.target.closest('[title]');
    const on = faults.filter(f => Number(f.dataset.to) >= t && t >= Number(f.dataset.from)).map(f => '• ' + f.dataset.tip);
    tip.textContent = [text(t), describe(event.target, event, t) || (mark ? mark.title : ''), on.length ? 'active faults:\n' + on.join('\n') : ''].filter(Boolean).join('\n');
    tip.style.left = Math.min(event.clientX + 16, window.innerWidth - tip.offsetWidth - 8) + 'px';
    tip.style.top = (event.clientY + 20 + tip.offsetHeight > window.innerHeight ? event.clientY - tip.offsetHeight - 12 : event.clientY + 20) + 'px';
  });
  chart.addEventListener('pointerleave', () => { cursor.hidden = tip.hidden = true; });
  chart.addEventListener('pointerdown', event => {
    if (event.button === 0 && !event.target.closest('a')) start = timeAt(event);
    if (start !== null) event.preventDefault();
  });
  window.addEventListener('pointerup', event => {
    if (start === null) return;
    const a = start, b = timeAt(event) ?? from;
    start = null;
    selection.hidden = true;
    if (Math.abs(b - a) / width * axis.clientWidth > 5) later(Math.min(a, b), Math.abs(b - a));
  });
  chart.addEventListener('dblclick', () => act('all'));
  chart.addEventListener('wheel', event => {
    const t = timeAt(event);
    if (t === null || !(event.ctrlKey || event.shiftKey)) return;
    event.preventDefault();
    const turn = event.deltaY || event.deltaX;
    if (event.ctrlKey) zoom(turn > 0 ? 1.25 : 0.8, t); else move(turn > 0 ? 0.1 : -0.1);
  }, { passive: false });

  // Show only one Pod, until it is clicked again.
  let only = null;
  document.querySelectorAll('.legend .pod').forEach(p => p.addEventListener('click', () => {
    only = only === p.dataset.pod ? null : p.dataset.pod;
    chart.classList.toggle('one', only !== null);
    const names = new Set();
    chart.querySelectorAll('.lane').forEach(l => {
      if (l.dataset.pod === only) l.querySelectorAll('[data-process]').forEach(g => names.add(g.dataset.process));
    });
    chart.querySelectorAll('[data-process]').forEach(g => g.classList.toggle('this', names.has(g.dataset.process)));
  }));

  document.querySelectorAll('[data-do]').forEach(b => b.addEventListener('click', () => act(b.dataset.do)));
  document.querySelectorAll('[data-at]').forEach(a => a.addEventListener('click', () => {
    const w = Math.min(whole, Math.max(whole / 100, 1000));
    later(Number(a.dataset.at) - w / 2, w);
  }));
  document.querySelector('.tools').hidden = false;
  // The tooltip has more information than titles, which would appear in addition to it.
  document.querySelectorAll('svg.plot title').forEach(t => t.remove());
  chart.querySelectorAll('.fault').forEach(f => f.removeAttribute('title'));
  window.addEventListener('resize', () => later(...now()));
  if (first) show(0, whole);
})();
